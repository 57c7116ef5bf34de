// The session cookie of express-session: who is logged in may come in, and who logs out is out.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import signature from 'cookie-signature';
import { metric } from './lib/admin.mjs';
import { TRANSPORTS } from './lib/clients.mjs';
import { SECRET, Visitor } from './lib/express_app.mjs';
import { DIRECT } from './lib/gate.mjs';
import { RawSocket } from './lib/raw.mjs';
import { needsRedis } from './lib/redis.mjs';
import { SessionStage } from './lib/session_stage.mjs';
import { freshUser } from './lib/stage.mjs';

const RECHECK = 1000;
/** The answer takes its time on a busy machine. */
const SLACK = 500;

const skip = (DIRECT && 'needs the gate') || needsRedis;

const http = {
  route: [
    { path: '/', auth: 'pass' },
    { path: '/api', auth: 'require' },
    { path: '/visit', auth: 'optional' },
  ],
};

const env = { OLD_SECRET: 'the secret of last year, which some cookies still have' };

/** The application, its Redis and a gate in front. */
const behind = (store = {}, config = {}, app = {}) => SessionStage.open({
  store: { recheck: `${RECHECK}ms`, timeout: '500ms', ...store }, config: { http, ...config }, app, env,
});

describe('session cookies', { concurrency: 8, skip }, () => {
  let redis;
  let gate;
  let stage;

  before(async () => {
    stage = await behind();
    ({ redis, gate } = stage);
  });

  after(() => stage?.close());

  async function loggedIn(user = freshUser()) {
    const visitor = new Visitor(gate.url);
    const { status } = await visitor.login(user);
    assert.equal(status, 200);
    return { visitor, user };
  }

  const opened = async (library, transport, visitor, options = {}) => {
    const headers = { cookie: `theme=dark; ${visitor.cookie}`, ...options.headers };
    const connection = stage.client(library, transport, 'none', '', { ...options, headers });
    const [socket] = connection.open(['/']);
    return { connection, socket };
  };

  /** The word by which this client was shown out, and when. */
  async function shownOut(socket, transport) {
    const { reason, details, body, at } = await socket.disconnected();
    assert.match(reason, /^transport (close|error)$/);
    if (transport === 'polling') return { word: JSON.parse(body).reason, at };
    assert.equal(details.context.code, 4401);
    return { word: details.context.reason, at };
  }

  for (const transport of Object.keys(TRANSPORTS)) {
    for (const way of ['logout', 'destroy', 'regenerate']) {
      it(`${transport}: who logs in over REST comes in, and ${way} shows him out within recheck`, async () => {
        const { visitor, user } = await loggedIn();
        const { connection, socket } = await opened('v4', transport, visitor);
        try {
          await socket.ready();
          await connection.settled();
          const [seen] = await socket.call('whoami');
          assert.equal(seen.headers['x-auth-subject'], user);
          assert.equal(seen.headers['x-auth-issuer'], 'express-session');
          // The application finds its own session by the same cookie (C08).
          assert.equal(seen.headers.cookie, `theme=dark; ${visitor.cookie}`);
          assert.deepEqual(await socket.call('session'), [user]);
          // It stays as long as the session does.
          await new Promise((next) => setTimeout(next, 2 * RECHECK));
          assert.deepEqual(await socket.call('echo', 'here'), ['here']);

          const before = Date.now();
          const ended = gate.sessionEnded('logged_out', (record) => record.subject === user);
          assert.equal((await visitor.post(`/${way}`)).status, 200);
          const { word, at } = await shownOut(socket, transport);
          assert.equal(word, 'logged_out');
          assert.ok(at - before <= RECHECK + SLACK, `${at - before} ms after the ${way}`);
          const record = await ended;
          assert.equal(record.by, 'gate');
          assert.ok(await metric(gate, 'siogate_sessions_ended_total{by="gate",reason="logged_out"}') >= 1);
        } finally {
          await connection.close();
        }
      });
    }

    it(`${transport}: nobody comes in who is not logged in, and is told why`, async () => {
      const visitor = new Visitor(gate.url);
      assert.equal((await visitor.get('/visit')).body.user, null);
      const sid = 'q7Yx0m1k2b3c4d5e6f7g8h9i0jKLMNOP';
      const good = encodeURIComponent(`s:${signature.sign(sid, SECRET)}`);
      const user = await loggedIn();
      for (const [cookie, word] of [
        [visitor.cookie, 'credential_missing'],
        [`connect.sid=${good}`, 'logged_out'],
        [`connect.sid=${good.slice(0, -1)}`, 'signature_invalid'],
        [`connect.sid=${encodeURIComponent(`s:${signature.sign(sid, 'another')}`)}`, 'signature_invalid'],
        [`connect.sid=${sid}`, 'credential_malformed'],
        [`${user.visitor.cookie}; ${visitor.cookie}`, 'credential_malformed'],
        [`${user.visitor.cookie}; ${user.visitor.cookie}`, 'credential_malformed'],
        [undefined, 'credential_missing'],
      ]) {
        const { connection, socket } = await opened('v4', transport, { cookie });
        try {
          // Where two cookies are no credential, a poll is refused before CONNECT can be.
          const { data, body } = await socket.refusal();
          assert.equal(data?.code ?? JSON.parse(body).reason, word, cookie);
        } finally {
          await connection.close();
        }
      }
      // His own again, to see that it was not the form.
      const { connection, socket } = await opened('v4', transport, user.visitor);
      await socket.ready();
      await connection.close();
    });
  }

  for (const library of ['v3', 'v2']) {
    it(`${library}: a client that sends its cookie in the handshake comes in`, async () => {
      const { visitor, user } = await loggedIn();
      const { connection, socket } = await opened(library, 'upgrade', visitor);
      try {
        await socket.ready();
        const [seen] = await socket.call('whoami');
        assert.equal(seen.headers['x-auth-subject'], user);
        await visitor.post('/destroy');
        const { reason } = await socket.disconnected();
        assert.match(reason, /^transport (close|error)$/);
      } finally {
        await connection.close();
      }
    });
  }

  it('a session that becomes somebody else ends the sockets of the first', async () => {
    const { visitor, user } = await loggedIn();
    const { connection, socket } = await opened('v4', 'websocket', visitor);
    try {
      await socket.ready();
      const stored = JSON.parse(await redis.cli('GET', `sess:${visitor.sid}`));
      stored.passport.user = freshUser();
      await redis.cli('SET', `sess:${visitor.sid}`, JSON.stringify(stored), 'KEEPTTL');
      const { details } = await socket.disconnected();
      assert.equal(details.context.reason, 'subject_mismatch');
      await gate.sessionEnded('subject_mismatch', (record) => record.subject === user);
    } finally {
      await connection.close();
    }
  });

  it('the end of a session in the store is the end of its sockets, and whoever is active stays', async () => {
    const { visitor } = await loggedIn();
    const rolling = (await loggedIn()).visitor;
    const key = `sess:${visitor.sid}`;
    await redis.cli('PEXPIRE', key, '2500');
    await redis.cli('PEXPIRE', `sess:${rolling.sid}`, '2500');
    const one = await opened('v4', 'websocket', visitor);
    const two = await opened('v4', 'websocket', rolling);
    try {
      await Promise.all([one.socket.ready(), two.socket.ready()]);
      // `touch` of the application: only the time to live moves.
      assert.equal((await rolling.get('/visit')).status, 200);
      const { details } = await one.socket.disconnected();
      assert.equal(details.context.reason, 'token_expired');
      assert.equal(await redis.cli('EXISTS', key), '0');
      assert.deepEqual(await two.socket.call('echo', 'here'), ['here']);
    } finally {
      await one.connection.close();
      await two.connection.close();
    }
  });

  it('p19: a page of another origin cannot use the cookie', async () => {
    const { visitor } = await loggedIn();
    for (const origin of ['https://evil.example', 'null', `${gate.url}.evil.example`]) {
      const socket = new RawSocket(gate.url, { headers: { cookie: visitor.cookie, origin } });
      const { status } = await socket.refused();
      assert.equal(status, 403, origin);
    }
    const own = new RawSocket(gate.url, { headers: { cookie: visitor.cookie, origin: gate.url } });
    await own.opened();
    own.terminate();
  });

  it('REST takes the same cookie: require, optional, pass', async () => {
    const { visitor, user } = await loggedIn();
    const api = await visitor.get('/api/me');
    assert.deepEqual([api.status, api.body], [200, { user, subject: user }]);
    const stranger = new Visitor(gate.url);
    assert.equal((await stranger.get('/api/me')).status, 401);
    // A visitor has a session before he logs in, and an old cookie behind its end: he is nobody, not refused.
    assert.deepEqual((await stranger.get('/visit')).body, { user: null });
    assert.equal((await stranger.get('/visit')).status, 200);
    assert.equal((await stranger.get('/api/me')).status, 401);
    const { cookie } = visitor;
    await visitor.post('/destroy');
    assert.equal((await visitor.get('/visit')).status, 200);
    const answer = await fetch(`${gate.url}/api/me`, { headers: { cookie } });
    assert.equal(answer.status, 401);
    assert.equal((await answer.json()).reason, 'logged_out');
    // A form of another page.
    const forged = await fetch(`${gate.url}/api/me`, {
      method: 'POST',
      headers: { cookie: (await loggedIn()).visitor.cookie, origin: 'https://evil.example' },
    });
    assert.equal(forged.status, 403);
  });
});

describe('session cookies in trouble', { concurrency: 4, skip }, () => {
  async function built(store = {}, more = {}, options = {}) {
    const stage = await behind(store, more, options);
    const { redis, app, gate } = stage;
    // Where the gate keeps the cookie for itself, an application behind it has no sessions.
    const visitor = new Visitor(store.forward === false ? app.url : gate.url);
    await visitor.login(freshUser());
    const client = (transport) => {
      const connection = stage.client('v4', transport, 'none', '', { headers: { cookie: visitor.cookie } });
      const [socket] = connection.open(['/']);
      return { connection, socket };
    };
    return { redis, app, gate, visitor, client, stop: () => stage.close() };
  }

  for (const transport of ['websocket', 'polling']) {
    it(`c04: ${transport}: Redis dies: nobody new, the others stay for a grace, and go`, async () => {
      const grace = 3000;
      const { redis, gate, visitor, client, stop } = await built({ grace: `${grace}ms` });
      const { connection, socket } = client(transport);
      try {
        await socket.ready();
        await redis.kill();
        const killed = Date.now();
        const answer = await fetch(`${gate.url}/socket.io/?EIO=4&transport=polling`, { headers: { cookie: visitor.cookie } });
        assert.equal(answer.status, 503);
        assert.equal(answer.headers.get('retry-after'), '2');
        assert.equal((await answer.json()).reason, 'keys_unavailable');
        assert.equal((await fetch(`${gate.url}/api/me`, { headers: { cookie: visitor.cookie } })).status, 503);
        assert.deepEqual(await socket.call('echo', 'still here'), ['still here']);
        const { details, body, at } = await socket.disconnected();
        const word = transport === 'polling' ? JSON.parse(body).reason : details.context.reason;
        assert.equal(word, 'keys_unavailable');
        if (transport === 'websocket') assert.equal(details.context.code, 4503);
        const stayed = at - killed;
        assert.ok(stayed >= grace && stayed <= grace + RECHECK + 2 * SLACK, `${stayed} ms`);
        await gate.sessionEnded('keys_unavailable');
        assert.equal((await fetch(`${gate.adminUrl}/readyz`)).status, 200);
        assert.ok(gate.log.history.some(([name]) => name === 'session store away'));
      } finally {
        await connection.close();
        await stop();
      }
    });
  }

  it('c04: Redis comes back within the grace: nobody has noticed', async () => {
    const { redis, client, stop, gate } = await built({ grace: '10s' });
    const { connection, socket } = client('websocket');
    try {
      await socket.ready();
      await redis.cli('SAVE');
      await redis.kill();
      await gate.log.next('session store away', () => true);
      await redis.run();
      await gate.log.next('session store back', () => true);
      await new Promise((next) => setTimeout(next, 2 * RECHECK));
      assert.deepEqual(await socket.call('echo', 'here'), ['here']);
      const again = client('polling');
      await again.socket.ready();
      await again.connection.close();
    } finally {
      await connection.close();
      await stop();
    }
  });

  it('sockets of one cookie are one question, and the store is only read', async () => {
    const { redis, visitor, client, stop } = await built();
    const clients = Array.from({ length: 10 }, () => client('websocket'));
    try {
      await Promise.all(clients.map(({ socket }) => socket.ready()));
      const left = Number(await redis.cli('PTTL', `sess:${visitor.sid}`));
      await redis.cli('CONFIG', 'RESETSTAT');
      await new Promise((next) => setTimeout(next, 3 * RECHECK));
      const stats = await redis.cli('INFO', 'commandstats');
      const commands = Object.fromEntries([...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, n]) => [name, Number(n)]));
      // Asked again after 0.6 to 0.9 of recheck.
      assert.ok(commands.getrange >= 3 && commands.getrange <= 6, JSON.stringify(commands));
      const reading = ['getrange', 'pttl', 'config|resetstat', 'info', 'command|docs', 'command'];
      assert.deepEqual(Object.keys(commands).filter((name) => !reading.includes(name)), []);
      const now = Number(await redis.cli('PTTL', `sess:${visitor.sid}`));
      assert.ok(now <= left - 3 * RECHECK + SLACK, 'the session was touched');
    } finally {
      await Promise.all(clients.map(({ connection }) => connection.close()));
      await stop();
    }
  });

  it('c07: a secret in rotation verifies, and the metric says which', async () => {
    const { visitor, gate, client, stop } = await built(
      { secret_env: ['OLD_SECRET', 'SESSION_SECRET'], claims: { page: '/visits' }, forward: false },
      { identity: { headers: { 'x-auth-subject': 'sub', 'x-auth-page': 'page' } } },
    );
    try {
      await visitor.get('/visit');
      const { connection, socket } = client('upgrade');
      await socket.ready();
      const [seen] = await socket.call('whoami');
      assert.equal(seen.headers['x-auth-page'], '1');
      // C08: not passed on where the configuration says so.
      assert.equal(seen.headers.cookie, undefined);
      await connection.close();
      assert.ok(await metric(gate, 'siogate_session_cookies_total{store="express-session",secret="1"}') >= 1);
      assert.equal(await metric(gate, 'siogate_session_cookies_total{store="express-session",secret="0"}'), 0);
    } finally {
      await stop();
    }
  });
});
