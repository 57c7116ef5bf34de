// The rules of a session: who may join which namespace, whose sid it is, what is refused and how, what outlives what.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Backend } from './lib/backend.mjs';
import { TRANSPORTS, client, freshTag } from './lib/clients.mjs';
import { Gate, trust } from './lib/gate.mjs';
import { Issuer, nowSeconds, secretToken } from './lib/issuer.mjs';
import { RawPolling, RawSocket, engineUrl, rawExchange } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

let stage;

before(async () => {
  const options = { transports: ['polling', 'websocket'], pingInterval: 400, pingTimeout: 1000 };
  stage = await Stage.open({ backend: { options }, config: { socketio: { connect_deadline: '1s' } } });
});

after(() => stage?.close());

/** A raw WebSocket that has been let in. */
async function letIn(token, { headers = {}, query = {} } = {}) {
  const socket = new RawSocket(stage.url, { headers, query: { tag: freshTag(), ...query } });
  await socket.opened();
  socket.ws.on('message', (data) => data.toString() === '2' && socket.send('3'));
  socket.send(`40${JSON.stringify({ token })}`);
  assert.match(await socket.message(), /^40\{/);
  return socket;
}

const code = (packet) => JSON.parse(packet.slice(packet.indexOf('{'))).data?.code;

describe('namespaces', { concurrency: 4, skip: needsGate }, () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    it(`${transport}: a further namespace needs no token of its own`, async () => {
      const user = freshUser();
      const connection = stage.client('v4', transport, 'auth', stage.issuer.sign({ sub: user }));
      const [main] = connection.open(['/']);
      await main.ready();
      const admin = connection.socket('/admin', { role: 'guest' }).connect();
      await admin.ready();
      const [seen] = await admin.call('whoami');
      assert.equal(seen.headers['x-auth-subject'], user);
      assert.deepEqual(seen.auth, { role: 'guest' });
      await connection.close();
    });

    for (const [name, make, word] of [
      ['of another subject', () => stage.issuer.sign({ sub: freshUser() }), 'subject_mismatch'],
      ['that is expired', () => stage.issuer.expired(), 'token_expired'],
      ['that is garbled', () => 'garbled', 'credential_malformed'],
    ]) {
      it(`${transport}: a further namespace is refused to a token ${name}, the first one stays`, async () => {
        const connection = stage.client('v4', transport, 'auth', stage.issuer.sign({ sub: freshUser() }));
        const [main] = connection.open(['/']);
        await main.ready();
        const admin = connection.socket('/admin', { token: make() }).connect();
        const { data } = await admin.refusal();
        assert.equal(data?.code, word);
        assert.deepEqual(await main.call('echo', 'unharmed'), ['unharmed']);
        assert.equal(stage.backend.connections(connection.tag, '/admin'), 0);
        await connection.close();
      });
    }

    it(`${transport}: what the application refuses comes through untouched`, async () => {
      const connection = stage.client('v4', transport, 'auth', stage.issuer.sign());
      const [deny, unknown] = connection.open(['/deny', '/unknown']);
      const { message, data } = await deny.refusal();
      assert.deepEqual([message, data], ['denied by the application', { code: 42 }]);
      assert.equal((await unknown.refusal()).message, 'Invalid namespace');
      await connection.close();
    });
  }

  it('a second CONNECT to the same namespace never makes a second socket', async () => {
    const tag = freshTag();
    const socket = await letIn(stage.issuer.sign(), { query: { tag } });
    socket.send(`40${JSON.stringify({ token: stage.issuer.sign() })}`);
    await socket.closed();
    assert.equal(stage.backend.connections(tag), 1);
  });

  it('two CONNECTs back to back, the second of another: one socket at most, and never the other', async () => {
    const tag = freshTag();
    const socket = new RawSocket(stage.url, { query: { tag } });
    await socket.opened();
    socket.send(`40${JSON.stringify({ token: stage.issuer.sign({ sub: 'alice' }), a: 1 })}`);
    socket.send(`40${JSON.stringify({ token: stage.issuer.sign({ sub: 'bob' }), a: 2 })}`);
    await socket.closed();
    assert.ok(stage.backend.connections(tag) <= 1);
    for (const [name, peer] of stage.backend.events.history) {
      if (name === `connection ${tag} /`) assert.equal(peer.handshake.auth.a, 1);
    }
  });

  it('leaving a namespace and coming back', async () => {
    const connection = stage.client('v4', 'websocket', 'auth', stage.issuer.sign());
    const [main, admin] = connection.open(['/', '/admin']);
    await main.ready();
    await admin.ready();
    admin.raw.disconnect();
    await stage.backend.gone(connection.tag, '/admin');
    admin.connect();
    await admin.disconnected();
    await admin.ready();
    assert.deepEqual(await admin.call('echo', 'again'), ['again']);
    await connection.close();
  });
});

describe('the sid is bound to its identity', { concurrency: 4, skip: needsGate }, () => {
  const bearer = (token) => ({ authorization: `Bearer ${token}` });

  /** Alice's polling session, connected. */
  async function alices() {
    const user = freshUser();
    const token = stage.issuer.sign({ sub: user });
    const polling = new RawPolling(stage.url, { query: { tag: freshTag() }, headers: bearer(token) });
    await polling.opened();
    await polling.post('40');
    assert.match(await polling.packet(), /^40\{/);
    polling.headers = {};
    return { polling, user, token };
  }

  it('no token with a known sid is fine, and so is a fresh one of the same subject', async () => {
    const { polling, user } = await alices();
    assert.equal((await polling.post('42["push",1]')).status, 200);
    assert.equal(await polling.packet(), '42["pushed",1]');
    const headers = bearer(stage.issuer.sign({ sub: user }));
    assert.equal((await polling.post('42["push",2]', { headers })).status, 200);
    assert.equal(await polling.packet(), '42["pushed",2]');
  });

  for (const [name, make] of [
    ['header', (token) => ({ headers: bearer(token) })],
    ['query', (token) => ({ query: { token } })],
    ['cookie', (token) => ({ headers: { cookie: `token=${token}` } })],
  ]) {
    it(`another subject's token in ${name} is 403 on GET, POST and upgrade, and the session is unharmed`, async () => {
      const { polling } = await alices();
      const bob = make(stage.issuer.sign({ sub: freshUser() }));
      assert.equal((await polling.get(bob)).status, 403);
      assert.equal((await polling.post('42["push","forged"]', bob)).status, 403);
      const upgrade = new RawSocket(stage.url, { query: { sid: polling.sid, ...bob.query }, headers: bob.headers });
      assert.equal((await upgrade.refused()).status, 403);
      await polling.post('42["push","mine"]');
      assert.equal(await polling.packet(), '42["pushed","mine"]');
    });
  }

  it('an expired token with a known sid is 401', async () => {
    const { polling } = await alices();
    assert.equal((await polling.get({ headers: bearer(stage.issuer.expired()) })).status, 401);
  });

  it('sids are not guessable by their neighbours', async () => {
    const sids = await Promise.all(Array.from({ length: 5 }, () => new RawPolling(stage.url).opened().then((open) => open.sid)));
    assert.equal(new Set(sids).size, 5);
    for (const sid of sids) assert.match(sid, /^[A-Za-z0-9_-]{20,64}$/);
  });
});

describe('words of refusal', { concurrency: 4, skip: needsGate }, () => {
  const cases = {
    credential_missing: () => undefined,
    credential_malformed: () => 'a.b',
    token_expired: () => stage.issuer.expired(),
    token_not_yet_valid: () => stage.issuer.sign({ nbf: nowSeconds() + 600 }),
    signature_invalid: () => stage.issuer.tampered(),
    audience_mismatch: () => stage.issuer.sign({ aud: ['billing', 'mail'] }),
    issuer_unknown: () => stage.issuer.sign({ iss: `${stage.issuer.url}/` }),
    claim_rejected: () => stage.issuer.sign({ exp: 'tomorrow' }),
  };
  for (const [word, make] of Object.entries(cases)) {
    it(`${word}: in CONNECT_ERROR and in the log`, async () => {
      const socket = new RawSocket(stage.url);
      await socket.opened();
      socket.send(`40${JSON.stringify({ token: make(), more: 1 })}`);
      const packet = await socket.message();
      assert.match(packet, /^44\{/);
      assert.equal(code(packet), word);
      socket.terminate();
      await stage.gate.sessionEnded(word);
    });
  }

  it('connect_timeout: a client that never connects', async () => {
    const socket = new RawSocket(stage.url);
    await socket.opened();
    socket.ws.on('message', (data) => data.toString() === '2' && socket.send('3'));
    await socket.closed();
    await stage.gate.sessionEnded('connect_timeout');
  });
});

describe('requests that are not quite Engine.IO', { concurrency: 4, skip: needsGate }, () => {
  const get = async (query) => {
    const response = await fetch(`${stage.url}/socket.io/?${query}`, { headers: { authorization: `Bearer ${stage.issuer.sign()}` } });
    return { status: response.status, body: await response.text() };
  };

  const odd = {
    'two sids': 'EIO=4&transport=polling&sid=a&sid=b',
    'an encoded sid name beside one': 'EIO=4&transport=polling&sid=a&%73id=b',
    'two EIO': 'EIO=4&EIO=3&transport=polling',
    'two transports': 'EIO=4&transport=polling&transport=websocket',
    'JSONP': 'EIO=4&transport=polling&j=0',
    'EIO=5': 'EIO=5&transport=polling',
    'no EIO': 'transport=polling',
    'a NUL': 'EIO=4&transport=polling&x=%00',
    'a crafted sid': 'EIO=4&transport=polling&sid=__proto__',
  };
  for (const [name, query] of Object.entries(odd)) {
    it(`${name}: 400`, async () => assert.equal((await get(query)).status, 400));
  }

  it('an empty sid is a handshake', async () => {
    const { status, body } = await get('EIO=4&transport=polling&sid=');
    assert.equal(status, 200);
    assert.match(body, /^0\{/);
  });

  it('OPEN says the backend\'s timings and never webtransport', async () => {
    const { body } = await get('EIO=4&transport=polling');
    const open = JSON.parse(body.split('\x1e')[0].slice(1));
    assert.deepEqual([open.pingInterval, open.pingTimeout, open.maxPayload, open.upgrades], [400, 1000, 1_000_000, ['websocket']]);
    const late = await new RawPolling(stage.url).opened();
    assert.deepEqual([late.pingInterval, late.pingTimeout, late.maxPayload, late.upgrades], [400, 1000, 1_000_000, ['websocket']]);
  });

  for (const path of ['/socket.io', '/socket.io/x', '//socket.io/', '/%73ocket.io/', '/x/../socket.io/', '/socket.io/..;/', '/socket.io/%2e%2e/', '/SOCKET.IO/', '/socket.io//']) {
    it(`${path} never opens a session`, async () => {
      const token = stage.issuer.sign();
      const answer = await rawExchange(stage.gate.port, `GET ${path}?EIO=4&transport=polling HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${token}\r\nConnection: close\r\n\r\n`);
      assert.match(answer, /^HTTP\/1\.1 40[04] /);
    });
  }

  it('a garbage POST closes the session', async () => {
    const polling = new RawPolling(stage.url, { query: { tag: freshTag() }, headers: { authorization: `Bearer ${stage.issuer.sign()}` } });
    await polling.opened();
    await polling.post('40');
    await polling.packet();
    assert.ok([200, 400].includes((await polling.post('xyz')).status));
    await stage.backend.gone(polling.query.tag);
    assert.equal((await polling.get()).status, 400);
  });
});

describe('identity cannot be claimed', { concurrency: 4, skip: needsGate }, () => {
  const disguises = { 'x-auth-subject': 'mallory', x_auth_subject: 'mallory', 'X-Auth-Issuer': 'mallory', 'x-auth-session': 'mallory', 'x-forwarded-for': '6.6.6.6', 'x-forwarded-host': 'mallory' };

  for (const transport of Object.keys(TRANSPORTS)) {
    for (const place of ['header', 'auth']) {
      it(`${transport} ${place}: by headers of the handshake`, async () => {
        const user = freshUser();
        const connection = stage.client('v4', transport, place, stage.issuer.sign({ sub: user }), { headers: disguises });
        const [socket] = connection.open(['/']);
        await socket.ready();
        const [seen] = await socket.call('whoami');
        assert.equal(seen.headers['x-auth-subject'], user);
        assert.equal(seen.headers['x-auth-issuer'], stage.issuer.url);
        assert.equal(seen.headers['x-forwarded-for'], '127.0.0.1');
        assert.ok(!JSON.stringify(seen).includes('mallory'));
        await connection.close();
      });
    }
  }

  it('by naming the header in Connection', async () => {
    const user = freshUser();
    const headers = { authorization: `Bearer ${stage.issuer.sign({ sub: user })}`, connection: 'keep-alive, x-auth-subject' };
    const tag = freshTag();
    const polling = new RawPolling(stage.url, { query: { tag } });
    // fetch does not let Connection be set.
    const { request } = await import('node:http');
    const answer = await new Promise((done) => {
      request(engineUrl(stage.url, { tag }), { headers, agent: false }, (res) => {
        let body = '';
        res.on('data', (chunk) => {
          body += chunk;
        }).on('end', () => done({ status: res.statusCode, body }));
      }).end();
    });
    if (answer.status === 400) return;
    assert.equal(answer.status, 200);
    polling.sid = JSON.parse(answer.body.split('\x1e')[0].slice(1)).sid;
    await polling.post('40');
    const peer = await stage.backend.peer(tag);
    assert.equal(peer.handshake.headers['x-auth-subject'], user);
  });
});

describe('heartbeats', { concurrency: 9 }, () => {
  for (const library of ['v4', 'v3', 'v2']) {
    for (const transport of Object.keys(TRANSPORTS)) {
      it(`${library} ${transport}: an idle session lives`, async () => {
        const connection = stage.client(library, transport, 'header', stage.issuer.sign());
        const [socket] = connection.open(['/']);
        await socket.ready();
        await connection.settled();
        // The packet that only the other side sends by itself: `2` in protocol 4, the answer `3` in protocol 3.
        const beat = library === 'v2' ? 'pong' : 'ping';
        connection.engine.on('packet', ({ type }) => type === beat && connection.events.push('beat'));
        for (let i = 0; i < 6; i += 1) await connection.events.next('beat');
        assert.deepEqual(await socket.call('echo', 'alive'), ['alive']);
        assert.equal(stage.backend.connections(connection.tag), 1);
        await connection.close();
      });
    }
  }

  it('a client that falls silent is ended at the backend too', async () => {
    const tag = freshTag();
    const socket = new RawSocket(stage.url, { query: { tag }, headers: { authorization: `Bearer ${stage.issuer.sign()}` } });
    await socket.opened();
    socket.send('40');
    assert.match(await socket.message(), /^40\{/);
    await stage.backend.peer(tag);
    const since = Date.now();
    const { at } = await stage.backend.gone(tag);
    assert.ok(at - since <= 1400 + 1500, `after ${at - since} ms`);
    await socket.closed();
  });
});

describe('the backend goes and comes back', { skip: needsGate }, () => {
  it('clients are told, nothing hangs, and the next connection works', async () => {
    let backend = await Backend.start();
    const issuer = await Issuer.start();
    const gate = await Gate.start({ upstream: { urls: [backend.url], connect_timeout: '1s' }, issuer: [trust(issuer)] });
    try {
      const token = issuer.sign();
      const connection = client('v4', gate.url, { transport: 'websocket', auth: { token }, reconnection: false });
      const [socket] = connection.open(['/']);
      await socket.ready();
      const { port } = backend;
      await backend.stop();
      await socket.disconnected();

      const refused = client('v4', gate.url, { transport: 'polling', headers: { authorization: `Bearer ${token}` } });
      const [other] = refused.open(['/']);
      const { name } = await other.events.first(['refused', 'disconnect']);
      assert.equal(name, 'refused');
      await refused.close();

      backend = await Backend.start({ port });
      const back = client('v4', gate.url, { transport: 'websocket', auth: { token }, reconnection: true });
      const [again] = back.open(['/']);
      for (;;) {
        const { name: what } = await again.events.first(['connect', 'refused']);
        if (what === 'connect') break;
        if (!again.raw.active) again.connect();
      }
      assert.deepEqual(await again.call('echo', 'back'), ['back']);
      await back.close();
      await connection.close();
    } finally {
      await gate.stop();
      await backend.stop();
      await issuer.stop();
    }
  });

  it('SIGTERM ends the sessions and the gate, with exit code 0', async () => {
    const own = await Stage.open();
    const connections = [];
    try {
      for (const transport of Object.keys(TRANSPORTS)) {
        const connection = own.client('v4', transport, 'auth', own.issuer.sign());
        const [socket] = connection.open(['/']);
        connections.push([connection, socket]);
        await socket.ready();
        await connection.settled();
      }
      own.gate.child.kill('SIGTERM');
      for (const [connection, socket] of connections) {
        await socket.disconnected();
        await own.backend.gone(connection.tag);
      }
      assert.equal((await own.gate.exited).code, 0);
      assert.equal(own.gate.ended.filter(({ reason }) => reason === 'draining').length, 3);
    } finally {
      for (const [connection] of connections) await connection.close();
      await own.close();
    }
  });
});

describe('shared secrets', { skip: needsGate }, () => {
  it('the current and the previous secret open the door, others do not', async () => {
    const secrets = { current: 'c'.repeat(40), previous: 'p'.repeat(40), other: 'o'.repeat(40) };
    const own = await Stage.open({
      backendInstance: stage.backend,
      issuerInstance: stage.issuer,
      config: { issuer: [{ secret_env: 'E2E_SECRET', previous_secret_env: 'E2E_OLD_SECRET', algorithms: ['HS256'], leeway: '0s' }] },
      env: { E2E_SECRET: secrets.current, E2E_OLD_SECRET: secrets.previous },
    });
    try {
      for (const [name, secret] of Object.entries(secrets)) {
        const user = freshUser();
        const connection = own.client('v4', 'websocket', 'auth', secretToken(secret, { sub: user }));
        const [socket] = connection.open(['/']);
        if (name === 'other') {
          assert.equal((await socket.refusal()).data.code, 'signature_invalid');
        } else {
          await socket.ready();
          const [seen] = await socket.call('whoami');
          assert.equal(seen.headers['x-auth-subject'], user);
        }
        await connection.close();
      }
    } finally {
      await own.close();
    }
  });
});
