// Log in at a real identity provider, connect, log out there: the sockets fall, and the old token opens nothing.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Backend } from './lib/backend.mjs';
import { client, credential, stopPython } from './lib/clients.mjs';
import { Gate } from './lib/gate.mjs';
import { Browser, IdentityProvider } from './lib/provider.mjs';
import { freshUser, needsGate } from './lib/stage.mjs';

const WITHIN = 1000;

let idp;
let backend;
let gate;
/** Told of logouts by user, and by login. */
let plain;
let named;

async function openGate(audience, extra = {}) {
  const rules = { issuer: idp.url, audience: ['chat', ...audience], algorithms: ['RS256'], logout: { audience } };
  return Gate.start({ upstream: { urls: [backend.url] }, issuer: [rules], ...extra });
}

describe('logout at the identity provider', { skip: needsGate }, () => {
  before(async () => {
    idp = await IdentityProvider.start();
    backend = await Backend.start();
    // The provider has to know where to send logouts, and the gate what it is called there.
    const door = await Gate.start({ upstream: { urls: [backend.url] }, issuer: [{ issuer: idp.url }] });
    const { address } = door;
    await door.stop();
    const uri = `http://${address}/.siogate/backchannel-logout`;
    [plain, named] = [await idp.register(uri), await idp.register(uri, { named: true })];
    gate = await openGate([plain.client_id, named.client_id], { server: { listen: [address] } });
  });

  after(async () => {
    await stopPython();
    await gate?.stop();
    await backend?.stop();
    await idp?.stop();
  });

  async function connected(library, transport, place, token) {
    const connection = client(library, gate.url, { transport, ...credential(place, token) });
    const [socket] = connection.open(['/']);
    await socket.ready();
    await connection.settled();
    return { connection, socket };
  }

  const refusedWith = async (library, transport, token) => {
    const connection = client(library, gate.url, { transport, ...credential('auth', token) });
    try {
      const [socket] = connection.open(['/']);
      return (await socket.refusal()).data?.code;
    } finally {
      await connection.close();
    }
  };

  for (const [library, transport] of [['v4', 'polling'], ['v4', 'websocket'], ['v4', 'upgrade'], ['v3', 'upgrade'], ['python', 'websocket']]) {
    it(`${library} over ${transport}: gone within a second, and the old token does not bring it back`, async () => {
      const user = freshUser();
      const browser = new Browser(idp);
      const { access_token: token } = await browser.login(plain, user);
      const other = await new Browser(idp).login(plain, freshUser());
      const mine = await connected(library, transport, 'auth', token);
      const theirs = await connected('v4', transport, 'header', other.access_token);
      try {
        const before = idp.sent;
        const asked = Date.now();
        await browser.logout();
        const { at } = await mine.socket.disconnected();
        assert.ok(at - asked < WITHIN, `${at - asked} ms`);
        assert.deepEqual([idp.sent, idp.failures], [before + 1, []], 'the provider takes its answer for a success');
        const record = await gate.sessionEnded('logged_out', (r) => r.subject === user);
        assert.equal(record.by, 'gate');
        for (const back of ['polling', 'websocket']) assert.equal(await refusedWith('v4', back, token), 'logged_out');
        assert.deepEqual(await theirs.socket.call('echo', 'still here'), ['still here']);
        // Who logs in again is let in again, from the next second on.
        await new Promise((next) => setTimeout(next, 1100));
        const again = await browser.login(plain, user);
        const back = await connected('v4', transport, 'auth', again.access_token);
        await back.connection.close();
      } finally {
        await mine.connection.close();
        await theirs.connection.close();
      }
    });
  }

  it('a logout that names the login ends that login and leaves another of the same user', async () => {
    const user = freshUser();
    const [laptop, phone] = [new Browser(idp), new Browser(idp)];
    // ID tokens of this client say which login they are of.
    const { id_token: one } = await laptop.login(named, user);
    const { id_token: two } = await phone.login(named, user);
    const first = await connected('v4', 'upgrade', 'auth', one);
    const second = await connected('v4', 'websocket', 'auth', two);
    try {
      await laptop.logout();
      await first.socket.disconnected();
      assert.equal(await refusedWith('v4', 'websocket', one), 'logged_out');
      assert.deepEqual(await second.socket.call('echo', 'still here'), ['still here']);
      await phone.logout();
      await second.socket.disconnected();
      assert.deepEqual(idp.failures, []);
    } finally {
      await first.connection.close();
      await second.connection.close();
    }
  });

  it('the word is the same at client, log, metric and admin list', async () => {
    const user = freshUser();
    const browser = new Browser(idp);
    const { access_token: token } = await browser.login(plain, user);
    const { connection, socket } = await connected('v4', 'websocket', 'auth', token);
    try {
      await browser.logout();
      const { details } = await socket.disconnected();
      assert.deepEqual([details.context.code, details.context.reason], [4401, 'logged_out']);
      await gate.sessionEnded('logged_out', (record) => record.subject === user);
      const metrics = await (await fetch(`${gate.adminUrl}/metrics`)).text();
      assert.match(metrics, /siogate_sessions_ended_total\{by="gate",reason="logged_out"\} \d+/);
      const list = await (await fetch(`${gate.adminUrl}/api/revocations`)).json();
      const mine = list.revocations.find((entry) => entry.value === user);
      assert.deepEqual([mine.kind, mine.reason, mine.issuer], ['sub', 'logged_out', idp.url]);
    } finally {
      await connection.close();
    }
  });
});
