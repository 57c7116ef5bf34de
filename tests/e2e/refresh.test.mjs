// New tokens without a new connection, the warning before the end, and sessions that nobody uses.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { issuedTokens, nowSeconds } from './lib/issuer.mjs';
import { RawPolling, RawSocket } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const MINUTE = Number(process.env.E2E_MINUTE ?? 60_000);
const EVENT = 'siogate:refresh';
const WAYS = ['websocket', 'polling'];

let stage;

/** A token that ends so many seconds from now. */
const token = (user, seconds, claims = {}) => stage.issuer.sign({ sub: user, exp: nowSeconds() + seconds, ...claims });

/** A stock client with a token of so many seconds. */
async function enter(on, transport, seconds, { user = freshUser(), library = 'v4', namespaces = ['/'] } = {}) {
  const place = library === 'v4' ? 'auth' : 'query';
  const exp = nowSeconds() + seconds;
  const connection = on.client(library, transport, place, stage.issuer.sign({ sub: user, exp }));
  const sockets = connection.open(namespaces);
  for (const socket of sockets) await socket.ready();
  await connection.settled();
  return { connection, socket: sockets[0], sockets, user, exp };
}

/** Everything that a backend's socket hears but the tests' own questions. */
async function eavesdrop(connection) {
  const peer = await stage.backend.peer(connection.tag);
  const heard = [];
  peer.conn.on('packet', (packet) => heard.push(String(packet.data ?? '')));
  return { peer, heard };
}

before(async () => {
  const refresh = { enabled: true, warn_before: '2s', notify: 'siogate:renewed' };
  stage = await Stage.open({ config: { session: { refresh } } });
});

after(() => stage?.close());

describe('refresh', { skip: needsGate, concurrency: 16 }, () => {
  /** Numbered messages both ways, every third one binary, while tokens of 5 s are renewed every 2 s. */
  async function steady(library, transport) {
    const { connection, socket, user } = await enter(stage, transport, 5, { library });
    const { peer, heard } = await eavesdrop(connection);
    const wrong = [];
    const check = (side) => {
      let next = 0;
      return (n, bytes) => {
        const whole = n % 3 !== 0 || (Buffer.isBuffer(bytes) && bytes.length === 8 && bytes.readUInt32BE(4) === n);
        if (n !== next || !whole) wrong.push(`${side}: ${n} instead of ${next}`);
        next = n + 1;
        return next;
      };
    };
    const message = (n) => {
      if (n % 3) return [n, `text ${n}`];
      const bytes = Buffer.alloc(8);
      bytes.writeUInt32BE(n, 4);
      return [n, bytes];
    };
    let [sent, up, down, refreshed] = [0, 0, 0, 0];
    const [checkUp, checkDown] = [check('up'), check('down')];
    peer.on('load', (...args) => {
      up = checkUp(...args);
    });
    socket.raw.on('load', (...args) => {
      down = checkDown(...args);
    });
    const end = Date.now() + MINUTE;
    const load = async () => {
      for (; Date.now() < end; sent += 1) {
        socket.emit('load', ...message(sent));
        peer.emit('load', ...message(sent));
        await sleep(5);
      }
    };
    const refreshes = async () => {
      while (Date.now() < end) {
        await sleep(2000);
        const exp = nowSeconds() + 5;
        const [answer] = await socket.call(EVENT, refreshed % 2 ? { token: token(user, 5) } : token(user, 5));
        assert.equal(answer.ok, true, JSON.stringify(answer));
        assert.ok(Math.abs(answer.expires_at - exp) <= 1 && answer.expires_in <= 6, JSON.stringify(answer));
        refreshed += 1;
      }
    };
    try {
      await Promise.all([load(), refreshes()]);
      // Behind everything else on the same line.
      assert.deepEqual(await socket.call('echo', 'last'), ['last']);
      for (const late = Date.now() + 5000; down < sent && Date.now() < late; ) await sleep(10);
      assert.deepEqual(wrong, []);
      assert.deepEqual([up, down], [sent, sent]);
      assert.ok(sent > MINUTE / 100 && refreshed >= Math.floor(MINUTE / 2100), `${sent} messages, ${refreshed} refreshes`);
      assert.equal(socket.events.count('disconnect'), 0);
      assert.equal(stage.backend.connections(connection.tag), 1);
      assert.ok(!heard.some((text) => text.includes(EVENT)), 'the backend has seen the event');
      assert.ok(!heard.some((text) => [...issuedTokens].some((one) => text.includes(one))), 'the backend has seen a token');
    } finally {
      await connection.close();
    }
  }

  for (const [library, transport] of [['v4', 'websocket'], ['v4', 'polling'], ['v4', 'upgrade'], ['v2', 'websocket'], ['v2', 'polling']]) {
    it(`${library} ${transport}: a minute of load with tokens of 5 s`, { timeout: MINUTE + 40_000 }, () => steady(library, transport));
  }

  for (const transport of WAYS) {
    it(`${transport}: what is refused leaves the session as it is until its end`, async () => {
      const { connection, socket, user, exp } = await enter(stage, transport, 4);
      const { heard } = await eavesdrop(connection);
      try {
        for (const [given, reason] of [
          [token('mallory', 300), 'subject_mismatch'],
          [stage.issuer.expired({ sub: user }), 'token_expired'],
          [stage.issuer.tampered({ sub: user }), 'signature_invalid'],
          [{ wrong: token(user, 300) }, 'credential_malformed'],
        ]) {
          const [answer] = await socket.call(EVENT, given);
          assert.deepEqual([answer.ok, answer.reason], [false, reason]);
          assert.equal(typeof answer.message, 'string');
        }
        assert.deepEqual(await socket.call('echo', 1), [1]);
        const { at } = await socket.disconnected();
        assert.ok(at - exp * 1000 < 1500 && at - exp * 1000 > -1500, `${at - exp * 1000} ms`);
        assert.ok(!heard.some((text) => text.includes(EVENT)));
      } finally {
        await connection.close();
      }
    });

    it(`${transport}: a flood is answered and not verified`, async () => {
      const { connection, socket, user } = await enter(stage, transport, 60);
      try {
        const good = token(user, 120);
        const answers = await Promise.all(Array.from({ length: 40 }, () => socket.call(EVENT, good)));
        const ok = answers.filter(([answer]) => answer.ok).length;
        assert.ok(ok >= 5 && ok <= 7, `${ok} were let through`);
        assert.ok(answers.every(([answer]) => answer.ok || answer.reason === 'rate_limited'));
        await sleep(1100);
        const [answer] = await socket.call(EVENT, good);
        assert.equal(answer.ok, true);
      } finally {
        await connection.close();
      }
    });

    it(`${transport}: in a namespace, without an acknowledgement, and the backend is told`, async () => {
      const { connection, sockets, user } = await enter(stage, transport, 3, { namespaces: ['/', '/admin'] });
      try {
        const told = [];
        for (const ns of ['/', '/admin']) {
          const peer = await stage.backend.peer(connection.tag, ns);
          peer.on('siogate:renewed', ({ expires_at: at }) => told.push([ns, at]));
        }
        const exp = nowSeconds() + 60;
        sockets[1].emit(EVENT, token(user, 60));
        await sleep(3500);
        for (const socket of sockets) assert.deepEqual(await socket.call('echo', 'alive'), ['alive']);
        told.sort();
        assert.deepEqual(told.map(([ns]) => ns), ['/', '/admin']);
        assert.ok(told.every(([, at]) => Math.abs(at - exp) <= 1), JSON.stringify(told));
      } finally {
        await connection.close();
      }
    });

    it(`${transport}: a refresh that races the cut has one outcome`, async () => {
      const start = nowSeconds() + 4;
      const race = async (i) => {
        const user = freshUser();
        const connection = stage.client('v4', transport, 'auth', stage.issuer.sign({ sub: user, exp: start }));
        const [socket] = connection.open(['/']);
        await socket.ready();
        const fresh = stage.issuer.sign({ sub: user, exp: start + 60 });
        await sleep(start * 1000 - Date.now() - 20 + i * 2);
        let answered;
        socket.raw.emit(EVENT, fresh, (answer) => {
          answered = answer;
        });
        try {
          // Well behind the cut.
          await sleep(1500);
          const cut = socket.events.count('disconnect') > 0;
          assert.equal(cut, answered?.ok !== true, `${JSON.stringify(answered)}, cut: ${cut}`);
          if (!cut) assert.deepEqual(await socket.call('echo', i), [i]);
          return cut;
        } finally {
          await connection.close();
        }
      };
      const cuts = await Promise.all(Array.from({ length: 20 }, (_, i) => race(i)));
      assert.ok(cuts.length === 20);
    });

    it(`${transport}: a warning in each namespace, once for each end`, async () => {
      const { connection, sockets, user, exp: first } = await enter(stage, transport, 5, { namespaces: ['/', '/admin'] });
      try {
        const warned = [];
        sockets.forEach((socket, i) => socket.raw.on('siogate:expiring', ({ seconds }) => warned.push([i, seconds, Date.now()])));
        await sleep(first * 1000 - Date.now() - 1000);
        assert.deepEqual(warned.map(([i]) => i).sort(), [0, 1]);
        assert.ok(warned.every(([, seconds]) => seconds === 2 || seconds === 1), JSON.stringify(warned));
        const exp = nowSeconds() + 5;
        const [answer] = await sockets[0].call(EVENT, token(user, 5));
        assert.equal(answer.ok, true);
        await sleep(exp * 1000 - Date.now() - 1000);
        assert.equal(warned.length, 4, JSON.stringify(warned));
        await sockets[0].disconnected();
        assert.equal(warned.length, 4);
      } finally {
        await connection.close();
      }
    });
  }

  it('over HTTP: with the session as the proof, and with reasons', async () => {
    const { connection, socket, user } = await enter(stage, 'websocket', 3);
    const post = async (bearer, session, headers = {}) => {
      const response = await fetch(`${stage.url}/.siogate/refresh`, {
        method: 'POST',
        headers: { ...(bearer && { authorization: `Bearer ${bearer}` }), 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ session }),
      });
      return [response.status, await response.json(), response.headers];
    };
    try {
      const { id } = connection.engine;
      for (const [given, session, status, reason] of [
        ['', id, 401, 'credential_missing'],
        ['a.b.c', id, 401, 'credential_malformed'],
        [token('mallory', 300), id, 403, 'subject_mismatch'],
        [token(user, 300), 'x'.repeat(20), 404, undefined],
      ]) {
        const [code, body] = await post(given, session);
        assert.deepEqual([code, body.ok, body.reason], [status, false, reason]);
        if (status === 404) assert.deepEqual(body, { ok: false, code: 1, message: 'Session ID unknown' });
      }
      const [status, body] = await post(token(user, 60), id);
      assert.equal(status, 200);
      assert.equal(body.ok, true);
      assert.ok(body.expires_in >= 59 && body.expires_in <= 60);
      await sleep(3500);
      assert.deepEqual(await socket.call('echo', 'alive'), ['alive']);
      const codes = await Promise.all(Array.from({ length: 20 }, () => post(token(user, 60), id)));
      assert.ok(codes.some(([code, { reason }, headers]) => code === 429 && reason === 'rate_limited' && headers.get('retry-after') === '1'));
      const [refused] = await post(token(user, 60), id, { origin: 'https://evil.example' });
      assert.equal(refused, 403);
      const get = await fetch(`${stage.url}/.siogate/refresh`);
      assert.equal(get.status, 405);
      const big = await fetch(`${stage.url}/.siogate/refresh`, { method: 'POST', headers: { authorization: `Bearer ${token(user, 60)}` }, body: 'x'.repeat(100_000) });
      assert.equal(big.status, 413);
    } finally {
      await connection.close();
    }
  });

  it('a revocation concerns the new token, no longer the old one', async () => {
    const [older, newer] = [`old-${process.pid}`, `new-${process.pid}`];
    const user = freshUser();
    const connection = stage.client('v4', 'websocket', 'auth', token(user, 60, { jti: older }));
    const [socket] = connection.open(['/']);
    await socket.ready();
    const revoke = (jti) => fetch(`${stage.gate.adminUrl}/api/revocations`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ issuer: stage.issuer.url, jti, until: nowSeconds() + 300 }),
    });
    try {
      assert.equal((await socket.call(EVENT, token(user, 60, { jti: newer })))[0].ok, true);
      assert.equal((await revoke(older)).status < 300, true);
      assert.deepEqual(await socket.call('echo', 'alive'), ['alive']);
      const [answer] = await socket.call(EVENT, token(user, 60, { jti: older }));
      assert.equal(answer.reason, 'revoked');
      assert.deepEqual(await socket.call('echo', 'alive'), ['alive']);
      await revoke(newer);
      await socket.disconnected();
    } finally {
      await connection.close();
    }
  });
});

describe('bounds of a session', { skip: needsGate, concurrency: 8 }, () => {
  let short;
  before(async () => {
    short = await Stage.open({
      backend: { options: { pingInterval: 400, pingTimeout: 5000 } },
      config: { session: { max_lifetime: '6s', idle_timeout: '2s', refresh: { enabled: true, warn_before: '0s' } } },
      issuerInstance: stage.issuer,
    });
  });
  after(() => short?.close());

  for (const transport of WAYS) {
    it(`${transport}: no refresh goes beyond max_lifetime`, async () => {
      const { connection, socket, user } = await enter(short, transport, 3);
      const start = Date.now();
      // A refresh alone does not keep a session awake.
      const busy = setInterval(() => socket.emit('nothing'), 200);
      try {
        for (let i = 0; i < 4; i += 1) {
          await sleep(1000);
          const [answer] = await socket.call(EVENT, token(user, 300));
          assert.ok(answer.ok && answer.expires_in <= 6 - i, JSON.stringify(answer));
        }
        const { at } = await socket.disconnected();
        assert.ok(Math.abs(at - start - 6000) < 1000, `${at - start} ms`);
        await short.gate.sessionEnded('max_session', (record) => record.subject === user);
      } finally {
        clearInterval(busy);
        await connection.close();
      }
    });

    it(`${transport}: idle in spite of refreshes`, async () => {
      const { connection, socket, user } = await enter(short, transport, 300);
      const start = Date.now();
      const refreshing = setInterval(() => socket.emit(EVENT, token(user, 300)), 400);
      try {
        const { at } = await socket.disconnected();
        assert.ok(at - start > 1500 && at - start < 3200, `${at - start} ms`);
        await short.gate.sessionEnded('idle', (record) => record.subject === user);
      } finally {
        clearInterval(refreshing);
        await connection.close();
      }
    });

    it(`${transport}: idle in spite of heartbeats, and not while either side speaks`, async () => {
      const busy = await enter(short, transport, 300);
      const idle = await enter(short, transport, 300);
      try {
        const peer = await short.backend.peer(busy.connection.tag);
        const pushing = setInterval(() => peer.emit('pushed', 1), 500);
        const start = Date.now();
        const { at } = await idle.socket.disconnected();
        assert.ok(at - start > 1500 && at - start < 3200, `${at - start} ms`);
        await short.gate.sessionEnded('idle', (record) => record.subject === idle.user);
        await sleep(1000);
        assert.equal(busy.socket.events.count('disconnect'), 0);
        clearInterval(pushing);
      } finally {
        await busy.connection.close();
        await idle.connection.close();
      }
    });
  }

  it('off by default: the event is the backend’s, the path is nobody’s', async () => {
    const plain = await Stage.open({ issuerInstance: stage.issuer });
    try {
      const { connection, socket, user } = await enter(plain, 'websocket', 60);
      const peer = await plain.backend.peer(connection.tag);
      peer.on(EVENT, (given, reply) => reply('mine'));
      assert.deepEqual(await socket.call(EVENT, 'no token'), ['mine']);
      const answer = await fetch(`${plain.url}/.siogate/refresh`, { method: 'POST', headers: { authorization: `Bearer ${token(user, 60)}` }, body: '{}' });
      assert.equal(answer.status, 404);
      await connection.close();
    } finally {
      await plain.close();
    }
  });
});

describe('refresh by hand', { skip: needsGate, concurrency: 8 }, () => {
  it('packets behind a refresh wait for it, in order', async () => {
    const user = freshUser();
    const socket = new RawSocket(stage.url, { headers: { authorization: `Bearer ${token(user, 60)}` } });
    try {
      await socket.opened();
      socket.send('40');
      await socket.message();
      socket.send('421["echo","before"]');
      socket.send(`422["${EVENT}","${token(user, 60)}"]`);
      socket.send('423["echo","behind"]');
      // The gate may answer before the backend does.
      const answers = [await socket.message(), await socket.message(), await socket.message()];
      const [refreshed] = answers.splice(answers.findIndex((text) => text.startsWith('432')), 1);
      assert.match(refreshed, /^432\[\{.*"ok":true.*\}\]$/);
      assert.deepEqual(answers, ['431["before"]', '433["behind"]']);
    } finally {
      socket.terminate();
    }
  });

  it('a preflight and an answer carry the origin', async () => {
    const page = { origin: stage.url };
    const preflight = await fetch(`${stage.url}/.siogate/refresh`, { method: 'OPTIONS', headers: { ...page, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' } });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-headers'), 'authorization');
  });

  it('one POST with a refresh between two packets', async () => {
    const user = freshUser();
    const session = new RawPolling(stage.url, { headers: { authorization: `Bearer ${token(user, 60)}` } });
    await session.opened();
    assert.equal((await session.post('40')).status, 200);
    await session.packet();
    await session.post(['421["echo","before"]', `42["${EVENT}","${token(user, 60)}"]`, '423["echo","behind"]'].join('\x1e'));
    assert.equal(await session.packet(), '431["before"]');
    assert.equal(await session.packet(), '433["behind"]');
    await session.post('1');
  });
});
