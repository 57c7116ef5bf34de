// Opaque tokens, which only the identity provider knows: asked when they come, and again while their sockets live.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TRANSPORTS } from './lib/clients.mjs';
import { Endpoint, unclear } from './lib/endpoint.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { CLIENT, IdentityProvider } from './lib/oidc.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const RECHECK = 1000;
const SLACK = 500;
const env = { GATE_SECRET: CLIENT.secret, POST_SECRET: 'posted' };

const section = (idp, more = {}) => ({
  url: idp.introspectionUrl,
  issuer: idp.url,
  client_id: CLIENT.id,
  client_secret_env: 'GATE_SECRET',
  scope: ['chat'],
  recheck: `${RECHECK}ms`,
  ...more,
});

describe('introspection by a real identity provider', { concurrency: 8, skip: needsGate }, () => {
  let idp;
  let stage;

  before(async () => {
    idp = await IdentityProvider.start();
    stage = await Stage.open({ config: { introspection: [section(idp)] }, env });
  });

  after(async () => {
    await stage?.close();
    await idp?.stop();
  });

  for (const transport of Object.keys(TRANSPORTS)) {
    for (const place of ['header', 'auth']) {
      it(`${transport}, ${place}: comes in by an opaque token and is out within recheck when it is revoked`, async () => {
        const user = freshUser();
        const token = await idp.token(user);
        const connection = stage.client('v4', transport, place, token);
        const [socket] = connection.open(['/']);
        try {
          await socket.ready();
          await connection.settled();
          const [seen] = await socket.call('whoami');
          assert.equal(seen.headers['x-auth-subject'], user);
          assert.equal(seen.headers['x-auth-issuer'], idp.url);
          assert.ok(!JSON.stringify(seen).includes(token), 'the backend saw the token');
          await new Promise((next) => setTimeout(next, 2 * RECHECK));
          assert.deepEqual(await socket.call('echo', 'here'), ['here']);
          const before = Date.now();
          const ended = stage.gate.sessionEnded('revoked', (record) => record.subject === user);
          await idp.revoke(token);
          const { details, body, at } = await socket.disconnected();
          const word = transport === 'polling' ? JSON.parse(body).reason : details.context.reason;
          assert.equal(word, 'revoked');
          assert.ok(at - before <= RECHECK + SLACK, `${at - before} ms after the revocation`);
          assert.equal((await ended).issuer, idp.url);
          // And it cannot come back.
          const again = stage.client('v4', transport, place, token);
          const [refused] = again.open(['/']);
          assert.equal((await refused.refusal()).data.code, 'revoked');
          await again.close();
        } finally {
          await connection.close();
        }
      });
    }
  }

  it('ends a socket at the exp of its token', async () => {
    const exp = nowSeconds() + 3;
    const token = await idp.token(freshUser(), { expiresIn: 3 });
    const connection = stage.client('v4', 'websocket', 'header', token);
    const [socket] = connection.open(['/']);
    try {
      await socket.ready();
      const { details, at } = await socket.disconnected();
      assert.equal(details.context.reason, 'token_expired');
      assert.ok(at >= exp * 1000 - 1000 && at <= exp * 1000 + 1500, `${at - exp * 1000} ms after exp`);
    } finally {
      await connection.close();
    }
  });

  it('asks about the tokens that no issuer knows, and about no other', async () => {
    const own = await Stage.open({ config: { introspection: [section(idp)] }, env, backendInstance: stage.backend });
    try {
      const before = idp.asked;
      const connection = own.client('v4', 'websocket', 'header', own.issuer.sign({ sub: freshUser() }));
      await connection.open(['/'])[0].ready();
      await connection.close();
      assert.ok(!own.gate.log.history.some(([, record]) => record.issuer === idp.url));
      const answer = await fetch(`${own.gate.adminUrl}/metrics`);
      assert.ok(!(await answer.text()).includes('by="introspection"'));
      assert.ok(idp.asked >= before);
    } finally {
      await own.close();
    }
  });

  it('a token without the scope is refused', async () => {
    const connection = stage.client('v4', 'websocket', 'header', await idp.token(freshUser(), { scope: 'openid' }));
    const [socket] = connection.open(['/']);
    assert.equal((await socket.refusal()).data.code, 'claim_rejected');
    await connection.close();
  });

  it('says who it is in the form, where that is wanted', async () => {
    const post = section(idp, { client_id: 'post', client_secret_env: 'POST_SECRET', auth: 'post' });
    const own = await Stage.open({ config: { introspection: [post] }, env, backendInstance: stage.backend });
    try {
      const connection = own.client('v4', 'polling', 'auth', await idp.token(freshUser()));
      await connection.open(['/'])[0].ready();
      await connection.close();
    } finally {
      await own.close();
    }
  });
});

describe('introspection by an endpoint that misbehaves', { concurrency: 4, skip: needsGate }, () => {
  let backend;
  before(async () => {
    backend = await Stage.open({});
  });
  after(() => backend?.close());

  async function asking(answer, more = {}) {
    const endpoint = await Endpoint.start(answer);
    const config = {
      introspection: [
        section({ introspectionUrl: endpoint.url, url: 'the endpoint' }, { scope: [], timeout: '400ms', ...more }),
      ],
      http: { route: [{ path: '/', auth: 'require' }] },
    };
    const stage = await Stage.open({ config, env, backendInstance: backend.backend, issuerInstance: backend.issuer });
    const stop = async () => {
      await stage.close();
      await endpoint.stop();
    };
    return { endpoint, stage, stop };
  }

  const opaque = () => `opaque-${freshUser()}-aaaaaaaaaaaaaaaaaaaaaaaa`;

  it('what is no answer is 503 and 4503, never a refusal and never a way in', async () => {
    const { endpoint, stage, stop } = await asking(() => ({ status: 500 }));
    try {
      const ways = { ...unclear, 'a strange active': () => ({ body: { active: 'true', sub: 'x' } }), 'a refusal of the gate itself': () => ({ status: 401 }) };
      for (const [way, answer] of Object.entries(ways)) {
        endpoint.answer = answer;
        const headers = { authorization: `Bearer ${opaque()}` };
        for (const path of ['/socket.io/?EIO=4&transport=polling', '/api']) {
          const said = await fetch(stage.url + path, { headers });
          assert.equal(said.status, 503, `${way} at ${path}`);
          assert.equal(said.headers.get('retry-after'), '2');
          assert.equal((await said.json()).reason, 'keys_unavailable');
        }
        // In CONNECT: the transport is closed, so that stock clients try again.
        const connection = stage.client('v4', 'websocket', 'auth', opaque());
        const [socket] = connection.open(['/']);
        const engine = connection.manager.engine ?? (await new Promise((next) => setImmediate(() => next(connection.manager.engine))));
        const closed = await new Promise((next) => engine.once('close', (reason, details) => next(details)));
        assert.equal(closed.context.code, 4503, way);
        assert.equal(socket.events.history.filter(([name]) => name === 'refused').length, 0, way);
        await connection.close();
      }
    } finally {
      await stop();
    }
  });

  it('equal questions are one, good answers are believed for a while, bad ones for a short one', async () => {
    const { endpoint, stage, stop } = await asking(
      async (request) => {
        await new Promise((next) => setTimeout(next, 100));
        return { body: request.body.includes('good') ? { active: true, sub: 'alice' } : { active: false } };
      },
      { recheck: '60s', negative_cache: '700ms', cache: '60s' },
    );
    try {
      const ask = async (token) => (await fetch(`${stage.url}/api`, { headers: { authorization: `Bearer ${token}` } })).status;
      assert.deepEqual(await Promise.all(Array.from({ length: 20 }, () => ask('good'))), Array(20).fill(404));
      assert.equal(endpoint.asked.length, 1);
      assert.equal(await ask('good'), 404);
      assert.deepEqual(await Promise.all(Array.from({ length: 20 }, () => ask('bad'))), Array(20).fill(401));
      assert.equal(await ask('bad'), 401);
      assert.equal(endpoint.asked.length, 2);
      await new Promise((next) => setTimeout(next, 900));
      assert.equal(await ask('bad'), 401);
      assert.equal(endpoint.asked.length, 3);
      const [{ method, url, headers, body }] = endpoint.asked;
      assert.deepEqual([method, url, headers['content-type']], ['POST', '/who', 'application/x-www-form-urlencoded']);
      assert.equal(body, 'token=good&token_type_hint=access_token');
      const basic = Buffer.from(headers.authorization.split(' ')[1], 'base64').toString().split(':').map(decodeURIComponent);
      assert.deepEqual(basic, [CLIENT.id, CLIENT.secret]);
    } finally {
      await stop();
    }
  });

  it('tokens = "all": the endpoint decides about JWTs of an issuer too', async () => {
    const { endpoint, stage, stop } = await asking(() => ({ body: { active: false } }), { tokens: 'all' });
    try {
      const token = stage.issuer.sign({ sub: 'alice' });
      const refused = stage.client('v4', 'websocket', 'header', token);
      assert.equal((await refused.open(['/'])[0].refusal()).data.code, 'revoked');
      await refused.close();
      endpoint.answer = () => ({ body: { active: true, sub: 'bob' } });
      const connection = stage.client('v4', 'websocket', 'auth', stage.issuer.sign({ sub: 'alice', other: 1 }));
      const [socket] = connection.open(['/']);
      await socket.ready();
      assert.equal((await socket.call('whoami'))[0].headers['x-auth-subject'], 'bob');
      await connection.close();
    } finally {
      await stop();
    }
  });

  it('a token that becomes somebody else ends the socket; silence does after the grace', async () => {
    const { endpoint, stage, stop } = await asking(() => ({ body: { active: true, sub: 'alice' } }), { grace: '1500ms' });
    try {
      const open = async (token) => {
        const connection = stage.client('v4', 'websocket', 'auth', token);
        const [socket] = connection.open(['/']);
        await socket.ready();
        return { connection, socket };
      };
      const one = await open(opaque());
      endpoint.answer = () => ({ body: { active: true, sub: 'mallory' } });
      assert.equal((await one.socket.disconnected()).details.context.reason, 'subject_mismatch');
      const two = await open(opaque());
      endpoint.answer = () => null;
      const dumb = Date.now();
      const { details, at } = await two.socket.disconnected();
      assert.deepEqual([details.context.code, details.context.reason], [4503, 'keys_unavailable']);
      assert.ok(at - dumb >= 1500 && at - dumb <= 1500 + RECHECK + 400 + 2 * SLACK, `${at - dumb} ms`);
      await one.connection.close();
      await two.connection.close();
    } finally {
      await stop();
    }
  });
});
