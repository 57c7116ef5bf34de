// Security events pushed by a transmitter of shared signals end the sockets of those whom they name.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Issuer } from './lib/issuer.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type';
const TOKEN = 'what the transmitter sends';

let stage;
let transmitter;

/** Pushes an event (RFC 8935) and resolves with the answer. */
async function push(event, subject, { bearer = TOKEN, ...claims } = {}) {
  const said = { aud: 'https://gate.example.com', jti: randomUUID(), exp: undefined, sub: undefined, sub_id: subject, events: event, ...claims };
  const token = transmitter.sign(said, { header: { typ: 'secevent+jwt' } });
  return fetch(`${stage.url}/.siogate/events`, {
    method: 'POST',
    headers: { 'content-type': 'application/secevent+jwt', authorization: `Bearer ${bearer}` },
    body: token,
  });
}

describe('shared signals', { skip: needsGate }, () => {
  before(async () => {
    transmitter = await Issuer.start();
    const issuer = await Issuer.start();
    stage = await Stage.open({
      issuerInstance: issuer,
      config: {
        transmitter: [{
          issuer: transmitter.url,
          jwks_url: transmitter.jwksUrl,
          audience: ['https://gate.example.com'],
          speaks_for: [issuer.url],
          token_env: 'SIGNALS_TOKEN',
        }],
      },
      env: { SIGNALS_TOKEN: TOKEN },
    });
  });
  after(async () => {
    await stage?.close();
    await stage?.issuer.stop();
    await transmitter?.stop();
  });

  const user = (sub) => ({ format: 'iss_sub', iss: stage.issuer.url, sub });
  const cases = [
    ['session-revoked of a user', { [`${CAEP}/session-revoked`]: {} }, user],
    ['session-revoked of one session', { [`${CAEP}/session-revoked`]: {} }, (sub) => ({
      format: 'complex', user: user(sub), session: { format: 'opaque', id: `${sub}-login` },
    })],
    ['credential-change', { [`${CAEP}/credential-change`]: { change_type: 'update', credential_type: 'password' } }, user],
    ['session-revoked by an opaque name', { [`${CAEP}/session-revoked`]: {} }, (id) => ({ format: 'opaque', id })],
  ];
  for (const [name, event, subject] of cases) {
    for (const transport of ['polling', 'websocket']) {
      it(`${name}: a client over ${transport} is gone within a second and stays out`, async () => {
        const sub = freshUser();
        const token = stage.issuer.sign({ sub, sid: `${sub}-login` });
        const connection = stage.client('v4', transport, 'auth', token);
        const [socket] = connection.open(['/']);
        try {
          await socket.ready();
          await connection.settled();
          const asked = Date.now();
          assert.equal((await push(event, subject(sub))).status, 202);
          const { at } = await socket.disconnected();
          assert.ok(at - asked < 1000, `${at - asked} ms`);
          await stage.gate.sessionEnded('revoked', (record) => record.subject === sub);
          const again = stage.client('v4', transport, 'auth', token);
          const [back] = again.open(['/']);
          assert.equal((await back.refusal()).data.code, 'revoked');
          await again.close();
        } finally {
          await connection.close();
        }
      });
    }
  }

  it('a test of the stream is acknowledged, and an unknown sender is not', async () => {
    const verification = { 'https://schemas.openid.net/secevent/ssf/event-type/verification': { state: 'x' } };
    assert.equal((await push(verification, { format: 'opaque', id: 'stream-1' })).status, 202);
    const refused = await push(verification, { format: 'opaque', id: 'stream-1' }, { bearer: 'wrong' });
    assert.equal(refused.status, 400);
    assert.deepEqual(await refused.json(), { err: 'authentication_failed', description: 'the bearer token is not the one agreed upon' });
  });
});
