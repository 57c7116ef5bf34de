// The cases of the Engine.IO protocol 4 suite, some of protocol 3's and of the Socket.IO protocol 5 suite, through the gate.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { Server as EngineServer } from 'engine.io';
import { Server as SocketServer } from 'socket.io';
import { Events, within } from './lib/events.mjs';
import { DIRECT, Gate, trust } from './lib/gate.mjs';
import { Issuer } from './lib/issuer.mjs';
import { RawPolling, RawSocket, engineUrl } from './lib/raw.mjs';

/** Heartbeats of the suites, for the cases that are about them. */
const PING_INTERVAL = 300;
const PING_TIMEOUT = 700;
const QUICK = { pingInterval: PING_INTERVAL, pingTimeout: PING_TIMEOUT };
/** For all others: on a busy machine a session must not end because a test came late. */
const CALM = { pingInterval: 25_000, pingTimeout: 20_000 };
const PATH = '/engine.io/';

let issuer;
const events = new Events('engine');

async function listening(attach) {
  const server = createServer((_, res) => res.writeHead(404).end());
  attach(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${server.address().port}`;
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  };
  return { server, url, stop };
}

/** Where the clients of the suite go. */
async function gateBefore(backend, socketio) {
  if (DIRECT) return { url: backend.url, stop: async () => {} };
  return Gate.start({ upstream: { urls: [backend.url] }, issuer: [trust(issuer)], socketio });
}

const headers = () => ({ authorization: `Bearer ${issuer.sign()}` });

before(async () => {
  issuer = await Issuer.start();
});
after(() => issuer?.stop());

/** A raw engine.io backend that echoes, behind a gate. */
async function engineLine(timing) {
  const backend = await listening((server) => {
    const engine = new EngineServer({ ...timing, maxHttpBufferSize: 1_000_000, allowEIO3: true });
    engine.attach(server, { path: PATH });
    engine.on('connection', (socket) => {
      socket.on('message', (data) => {
        if (data === 'close me') return socket.close();
        return socket.send(data);
      });
      socket.on('close', (reason) => events.push(`close ${socket.id}`, reason));
    });
  });
  return { backend, door: await gateBefore(backend, { protocol: 'engine.io', path: PATH }) };
}

const stopLine = async (line) => {
  await line?.door.stop();
  await line?.backend.stop();
};

/** The clients of the suite; `line` gives where they go. */
function clientsOf(line) {
  const url = () => line().door.url;
  const websocket = (query = {}, more = headers()) => new RawSocket(url(), { path: PATH, query, headers: more });
  const polling = (query = {}) => new RawPolling(url(), { path: PATH, query, headers: headers() });
  const plain = (query, init = {}) => within(fetch(engineUrl(url(), query, PATH), { ...init, headers: headers() }), 'a plain request');
  return {
    url,
    websocket,
    polling,
    plain,
    async openPolling(query) {
      const session = polling(query);
      await session.opened();
      // Later requests need not repeat the credential.
      session.headers = {};
      return session;
    },
    async openWebsocket(query) {
      const socket = websocket(query);
      await socket.opened();
      return socket;
    },
  };
}

/** The first poll that is answered with an error; the line may need a moment to be known broken. */
async function gone(session) {
  for (let i = 0; i < 20; i += 1) {
    const answer = await session.get();
    if (answer.status !== 200) return answer.status === 400 ? answer : session.get();
  }
  throw new Error('the session lives on');
}

describe('Engine.IO protocol', () => {
  let quick;
  let calm;

  before(async () => {
    quick = await engineLine(QUICK);
    calm = await engineLine(CALM);
  });

  after(async () => {
    await stopLine(quick);
    await stopLine(calm);
  });

  describe('handshake', { concurrency: 4 }, () => {
    const { plain, openPolling, openWebsocket, websocket } = clientsOf(() => quick);
    const KEYS = ['maxPayload', 'pingInterval', 'pingTimeout', 'sid', 'upgrades'];
    const check = (open, upgrades) => {
      assert.deepEqual(Object.keys(open).sort(), KEYS);
      assert.equal(typeof open.sid, 'string');
      assert.deepEqual([open.pingInterval, open.pingTimeout, open.maxPayload], [PING_INTERVAL, PING_TIMEOUT, 1_000_000]);
      assert.deepEqual(open.upgrades, upgrades);
    };

    it('polling opens a session', async () => check((await openPolling()).open, ['websocket']));

    it('websocket opens a session', async () => {
      const socket = await openWebsocket();
      check(socket.open, []);
      socket.terminate();
    });

    const errors = [
      ['no EIO', { EIO: undefined, transport: 'polling' }, 'GET', 400, undefined],
      ['a strange EIO', { EIO: 'abc' }, 'GET', 400, undefined],
      ['no transport', { transport: undefined }, 'GET', 400, { code: 0, message: 'Transport unknown' }],
      ['a strange transport', { transport: 'abc' }, 'GET', 400, { code: 0, message: 'Transport unknown' }],
      ['webtransport', { transport: 'webtransport' }, 'GET', 400, { code: 0, message: 'Transport unknown' }],
      ['POST', {}, 'POST', 400, { code: 2, message: 'Bad handshake method' }],
      ['PUT', {}, 'PUT', 400, { code: 2, message: 'Bad handshake method' }],
      ['an unknown sid', { sid: 'AAAAAAAAAAAAAAAAAAAA' }, 'GET', 400, { code: 1, message: 'Session ID unknown' }],
      ['websocket without Upgrade', { transport: 'websocket' }, 'GET', 400, { code: 3, message: 'Bad request' }],
    ];
    for (const [name, query, method, status, body] of errors) {
      // The backend itself takes a missing or strange EIO for protocol 3.
      it(`polling fails with ${name}`, { skip: DIRECT && name.includes('EIO') && 'protocol 3 to Node' }, async () => {
        const answer = await plain(query, { method });
        assert.equal(answer.status, status);
        const text = await answer.text();
        if (body) assert.deepEqual(JSON.parse(text), body);
      });
    }

    for (const [name, query] of [['a strange transport', { transport: 'abc' }], ['no transport', { transport: undefined }], ['an unknown sid', { sid: 'AAAAAAAAAAAAAAAAAAAA' }]]) {
      it(`websocket fails with ${name}`, async () => {
        const { name: what, value } = await websocket(query).events.first(['refused', 'close']);
        if (what === 'refused') assert.equal(value.status, 400);
      });
    }
  });

  describe('messages over polling', { concurrency: 4 }, () => {
    const { url, plain, openPolling, openWebsocket } = clientsOf(() => calm);
    const payloads = {
      'one text packet': '4hello',
      'several text packets': '4test1\x1e4test2\x1e4test3',
      'text and binary': '4hello\x1ebAQIDBA==',
      'wide characters': '4€ 😀 ☃\x1e4é',
      'an empty message': '4',
    };
    for (const [name, payload] of Object.entries(payloads)) {
      it(name, async () => {
        const session = await openPolling();
        const posted = await session.post(payload);
        assert.deepEqual([posted.status, posted.body], [200, 'ok']);
        const got = [];
        const wanted = payload.split('\x1e');
        while (got.length < wanted.length) got.push(await session.packet());
        assert.deepEqual(got, wanted);
      });
    }

    it('a payload in one answer', async () => {
      const session = await openPolling();
      await session.post('4test1\x1e4test2\x1e4test3');
      const { body, headers: answered } = await session.get();
      assert.match(body, /^4test1/);
      assert.match(answered.get('content-type'), /^text\/plain; charset=UTF-8$/i);
    });

    it('an invalid packet closes the session', async () => {
      const session = await openPolling();
      const { status } = await session.post('abc').catch(() => ({ status: 400 }));
      assert.ok([200, 400].includes(status));
      const { value } = await events.first([`close ${session.sid}`]);
      assert.equal(typeof value, 'string');
      assert.equal((await gone(session)).status, 400);
    });

    it('two polls at a time close the session', async () => {
      const session = await openPolling();
      const answers = await Promise.all([session.get(), session.get({ query: { t: 'burst' } })]);
      const [kept, refused] = answers.sort((a, b) => a.status - b.status);
      assert.deepEqual([kept.status, kept.body], [200, '1']);
      assert.ok([400, 500].includes(refused.status));
      assert.equal((await session.get()).status, 400);
    });

    it('a cancelled poll closes the session', async () => {
      const session = await openPolling();
      const held = connect(Number(new URL(url()).port), '127.0.0.1');
      await once(held, 'connect');
      const target = new URL(engineUrl(url(), { sid: session.sid }, PATH));
      await new Promise((sent) => held.write(`GET ${target.pathname}${target.search} HTTP/1.1\r\nHost: gate\r\n\r\n`, sent));
      // Requests sent and answered after it: by now the poll is held.
      for (let i = 0; i < 3; i += 1) await (await plain({ sid: 'unknown' })).text();
      held.destroy();
      await events.first([`close ${session.sid}`]);
      assert.equal((await gone(session)).status, 400);
    });

    it('a body above maxPayload is 413 and the session survives', async () => {
      const session = await openPolling();
      const { status } = await session.post(`4${'x'.repeat(1_000_001)}`);
      assert.equal(status, 413);
      await session.post('4small');
      assert.equal(await session.packet(), '4small');
    });

    it('octet-stream is refused', async () => {
      const session = await openPolling();
      const { status } = await session.post('4x', { headers: { 'content-type': 'application/octet-stream' } });
      assert.equal(status, 400);
    });

    it('another transport than the session has', async () => {
      const socket = await openWebsocket();
      const answer = await plain({ sid: socket.open.sid });
      assert.equal(answer.status, 400);
      socket.send('4unharmed');
      assert.equal(await socket.message(), '4unharmed');
      socket.terminate();
    });
  });

  describe('messages over websocket', { concurrency: 4 }, () => {
    const { openWebsocket } = clientsOf(() => calm);
    it('text and binary', async () => {
      const socket = await openWebsocket();
      socket.send('4hello €');
      assert.equal(await socket.message(), '4hello €');
      socket.send(Buffer.from([1, 2, 3, 4]));
      assert.deepEqual(await socket.message(), Buffer.from([1, 2, 3, 4]));
      // A base64 packet in a text frame is binary too.
      socket.send('bAQIDBA==');
      assert.deepEqual(await socket.message(), Buffer.from([1, 2, 3, 4]));
      socket.terminate();
    });

    it('fragmented messages', async () => {
      const socket = await openWebsocket();
      const parts = ['4', 'hel', 'lo', '!'];
      parts.forEach((part, i) => socket.ws.send(part, { fin: i === parts.length - 1, binary: false }));
      assert.equal(await socket.message(), '4hello!');
      socket.terminate();
    });

    for (const bad of ['abc', '', '8', '0{}x']) {
      it(`${JSON.stringify(bad)} closes the session or is ignored as Node does`, async () => {
        const socket = await openWebsocket();
        socket.send(bad);
        if (bad[0] === '0') {
          socket.send('4still');
          assert.equal(await socket.message(), '4still');
          socket.terminate();
          return;
        }
        await socket.closed();
      });
    }

    it('a message above maxPayload closes with 1009', async () => {
      const socket = await openWebsocket();
      socket.send(`4${'x'.repeat(1_000_001)}`);
      assert.equal((await socket.closed()).value.code, 1009);
    });

    it('a ping of WebSocket is answered', async () => {
      const socket = await openWebsocket();
      socket.ws.on('pong', (data) => socket.events.push('pong', data.toString()));
      socket.ws.ping('are you there');
      assert.equal(await socket.events.next('pong'), 'are you there');
      socket.terminate();
    });
  });

  describe('heartbeat', { concurrency: 8 }, () => {
    const { openPolling, openWebsocket } = clientsOf(() => quick);
    it('polling: ping and pong', async () => {
      const session = await openPolling();
      for (let i = 0; i < 4; i += 1) {
        const { status, body } = await session.get();
        assert.deepEqual([status, body], [200, '2']);
        assert.equal((await session.post('3')).status, 200);
      }
    });

    it('polling: silence closes the session at both ends', async () => {
      const session = await openPolling();
      const opened = Date.now();
      const { at } = await events.first([`close ${session.sid}`]);
      assert.ok(at - opened >= PING_INTERVAL, 'ended too early');
      assert.ok(at - opened <= PING_INTERVAL + PING_TIMEOUT + 1500, 'ended too late');
      assert.equal((await gone(session)).status, 400);
    });

    it('websocket: ping and pong', async () => {
      const socket = await openWebsocket();
      for (let i = 0; i < 4; i += 1) {
        assert.equal(await socket.events.next('message'), '2');
        socket.send('3');
      }
      socket.send('4alive');
      assert.equal(await socket.message(), '4alive');
      socket.terminate();
    });

    it('websocket: silence closes the session at both ends', async () => {
      const socket = await openWebsocket();
      const opened = Date.now();
      const { at } = await socket.closed();
      assert.ok(at - opened >= PING_INTERVAL && at - opened <= PING_INTERVAL + PING_TIMEOUT + 1500);
      await events.first([`close ${socket.open.sid}`]);
    });

    it('websocket: a ping in the wrong direction closes the session', async () => {
      const socket = await openWebsocket();
      socket.send('2');
      await socket.closed();
      await events.first([`close ${socket.open.sid}`]);
    });
  });

  describe('close', { concurrency: 4 }, () => {
    const { openPolling, openWebsocket } = clientsOf(() => calm);
    it('polling: the client closes', async () => {
      const session = await openPolling();
      const [held, posted] = await Promise.all([session.get(), session.post('1')]);
      // The POST may come first, then there is nothing to poll any more.
      assert.ok((held.status === 200 && held.body === '6') || held.status === 400, `${held.status} ${held.body}`);
      assert.equal(posted.status, 200);
      assert.equal((await session.get()).status, 400);
      await events.first([`close ${session.sid}`]);
    });

    it('websocket: the client closes by packet', async () => {
      // Node ignores the packet there and ends the session for want of heartbeats.
      const socket = await clientsOf(() => quick).openWebsocket();
      socket.send('1');
      await socket.closed();
      await events.first([`close ${socket.open.sid}`]);
    });

    it('websocket: the client closes by frame', async () => {
      const socket = await openWebsocket();
      socket.ws.close(1000);
      await socket.closed();
      await events.first([`close ${socket.open.sid}`]);
    });

    it('websocket: the client is cut off', async () => {
      const socket = await openWebsocket();
      socket.terminate();
      await events.first([`close ${socket.open.sid}`]);
    });

    it('websocket: the server closes', async () => {
      const socket = await openWebsocket();
      socket.send('4close me');
      await socket.closed();
    });

    it('polling: the server closes', async () => {
      const session = await openPolling();
      await session.post('4close me');
      await session.get();
      assert.equal((await gone(session)).status, 400);
    });
  });

  describe('upgrade', { concurrency: 4 }, () => {
    const { websocket, openPolling } = clientsOf(() => calm);
    /** Up to the answered probe. */
    async function probed() {
      const session = await openPolling();
      const socket = websocket({ sid: session.sid }, {});
      await socket.events.next('open');
      socket.send('2probe');
      assert.equal(await socket.message(), '3probe');
      return { session, socket };
    }

    it('from polling to websocket, with noop for the held poll', async () => {
      const { session, socket } = await probed();
      const { status, body } = await session.get();
      assert.deepEqual([status, body], [200, '6']);
      socket.send('5');
      socket.send('4hello');
      assert.equal(await socket.message(), '4hello');
      socket.terminate();
    });

    it('packets sent before are flushed after', async () => {
      const { session, socket } = await probed();
      await session.post('4one\x1e4two');
      socket.send('5');
      const got = [];
      const rest = (async () => {
        for (;;) got.push(await socket.message());
      })();
      rest.catch(() => {});
      socket.send('4three');
      while (!got.includes('4three')) await new Promise((next) => setImmediate(next));
      assert.deepEqual(got.filter((packet) => packet !== '6'), ['4one', '4two', '4three']);
      socket.terminate();
    });

    it('ignores HTTP requests with the same sid after it', async () => {
      const { session, socket } = await probed();
      socket.send('5');
      socket.send('4upgraded');
      assert.equal(await socket.message(), '4upgraded');
      const { status, body } = await session.get();
      assert.equal(status, 400);
      assert.equal(JSON.parse(body).code, 3);
      socket.send('4hello');
      assert.equal(await socket.message(), '4hello');
      socket.terminate();
    });

    it('ignores a WebSocket with the same sid after it', async () => {
      const { session, socket } = await probed();
      socket.send('5');
      socket.send('4upgraded');
      assert.equal(await socket.message(), '4upgraded');
      const second = websocket({ sid: session.sid }, {});
      await second.events.first(['close', 'refused']);
      socket.send('4hello');
      assert.equal(await socket.message(), '4hello');
      socket.terminate();
    });

    it('a probe that goes wrong leaves polling alone', async () => {
      const session = await openPolling();
      const socket = websocket({ sid: session.sid }, {});
      await socket.events.next('open');
      socket.send('4not a probe');
      await socket.closed();
      await session.post('4still polling');
      assert.equal(await session.packet(), '4still polling');
    });

    it('a probe that is cut off leaves polling alone', async () => {
      const { session, socket } = await probed();
      socket.terminate();
      await session.post('4still polling');
      assert.equal(await session.packet(), '4still polling');
    });
  });

  describe('protocol 3', { concurrency: 4 }, () => {
    const { polling, openWebsocket } = clientsOf(() => calm);
    const eio3 = async (query = {}) => {
      const session = polling({ EIO: '3', ...query });
      const { body } = await session.get();
      const [, length, rest] = body.match(/^(\d+):(.*)$/s);
      session.open = JSON.parse(rest.slice(1, Number(length)));
      session.sid = session.open.sid;
      session.headers = {};
      return session;
    };

    it('polling: length counts characters, not bytes', async () => {
      const session = await eio3({ b64: '1' });
      assert.equal((await session.post('4:4€😀')).status, 200);
      assert.equal((await session.get()).body, '4:4€😀');
    });

    it('polling: binary as base64', async () => {
      const session = await eio3({ b64: '1' });
      await session.post('10:b4AQIDBA==');
      assert.equal((await session.get()).body, '10:b4AQIDBA==');
    });

    it('polling: the client pings', async () => {
      const session = await eio3({ b64: '1' });
      for (let i = 0; i < 3; i += 1) {
        await session.post('1:2');
        assert.equal((await session.get()).body, '1:3');
      }
    });

    it('websocket: text, binary with its type byte, ping', async () => {
      const socket = await openWebsocket({ EIO: '3' });
      socket.send('4hello');
      assert.equal(await socket.message(), '4hello');
      socket.send(Buffer.from([4, 1, 2, 3]));
      assert.deepEqual(await socket.message(), Buffer.from([4, 1, 2, 3]));
      socket.send('2');
      assert.equal(await socket.message(), '3');
      socket.terminate();
    });

    it('websocket: silence ends the session', async () => {
      const socket = await clientsOf(() => quick).openWebsocket({ EIO: '3' });
      await socket.closed();
      await events.first([`close ${socket.open.sid}`]);
    });
  });
});

/** A Socket.IO server as the suite wants it, behind a gate. */
async function socketLine(timing) {
  const backend = await listening((server) => {
    const io = new SocketServer(server, { ...timing, maxHttpBufferSize: 1_000_000, connectTimeout: 1000 });
    for (const ns of ['/', '/custom']) {
      io.of(ns).on('connection', (socket) => {
        socket.emit('auth', socket.handshake.auth);
        socket.on('message', (...args) => socket.emit('message-back', ...args));
        socket.on('message-with-ack', (...args) => args.pop()(...args));
      });
    }
  });
  return { backend, door: await gateBefore(backend, { connect_deadline: '1s' }) };
}

describe('Socket.IO protocol', () => {
  let quick;
  let calm;

  before(async () => {
    quick = await socketLine(QUICK);
    calm = await socketLine(CALM);
  });

  after(async () => {
    await stopLine(quick);
    await stopLine(calm);
  });

  const direct = DIRECT ? '' : undefined;
  /** The auth payload as JSON text: the token, and whatever else. */
  const payload = (more = {}) => direct ?? JSON.stringify({ token: issuer.sign(), ...more });
  const open = async (line = calm) => {
    const socket = new RawSocket(line.door.url);
    await socket.opened();
    return socket;
  };
  const connected = async (ns = '', line = calm) => {
    const socket = await open(line);
    socket.send(`40${ns}${payload()}`);
    assert.match(await socket.message(), /^40/);
    assert.equal(await socket.message(), `42${ns}["auth",{}]`);
    return socket;
  };

  describe('connect', { concurrency: 8 }, () => {
    for (const ns of ['', '/custom,']) {
      it(`to ${ns || 'the main namespace'}`, async () => {
        const socket = await open();
        socket.send(`40${ns}${payload()}`);
        const answer = await socket.message();
        assert.ok(answer.startsWith(`40${ns}{`));
        assert.deepEqual(Object.keys(JSON.parse(answer.slice(2 + ns.length))), ['sid']);
        assert.equal(await socket.message(), `42${ns}["auth",{}]`);
        socket.terminate();
      });

      it(`to ${ns || 'the main namespace'} with a payload of the application`, async () => {
        const socket = await open();
        socket.send(`40${ns}${DIRECT ? '{"a":"1"}' : payload({ a: '1' })}`);
        await socket.message();
        assert.equal(await socket.message(), `42${ns}["auth",{"a":"1"}]`);
        socket.terminate();
      });
    }

    it('to an unknown namespace', async () => {
      const socket = await open();
      socket.send(`40/random,${payload()}`);
      assert.equal(await socket.message(), '44/random,{"message":"Invalid namespace"}');
      socket.terminate();
    });

    it('with an invalid packet', async () => {
      const socket = await open();
      socket.send('4abc');
      await socket.closed();
    });

    it('never: closed by the deadline', async () => {
      const socket = await open();
      await socket.closed();
    });
  });

  describe('disconnect', { concurrency: 8 }, () => {
    it('from the main namespace', async () => {
      const socket = await connected('', quick);
      socket.send('41');
      assert.equal(await socket.events.next('message'), '2');
      socket.terminate();
    });

    it('from a custom namespace, the main one stays', async () => {
      const socket = await connected();
      socket.send(`40/custom,${payload()}`);
      assert.match(await socket.message(), /^40\/custom,/);
      assert.equal(await socket.message(), '42/custom,["auth",{}]');
      socket.send('41/custom,');
      socket.send('42["message","to main"]');
      assert.equal(await socket.message(), '42["message-back","to main"]');
      socket.terminate();
    });
  });

  describe('messages', { concurrency: 8 }, () => {
    it('text', async () => {
      const socket = await connected();
      socket.send('42["message",1,"2",{"3":[true]}]');
      assert.equal(await socket.message(), '42["message-back",1,"2",{"3":[true]}]');
      socket.terminate();
    });

    it('two attachments', async () => {
      const socket = await connected();
      const places = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
      socket.send(`452-["message",${places}]`);
      socket.send(Buffer.from([1, 2, 3]));
      socket.send(Buffer.from([4, 5, 6]));
      assert.equal(await socket.message(), `452-["message-back",${places}]`);
      assert.deepEqual(await socket.message(), Buffer.from([1, 2, 3]));
      assert.deepEqual(await socket.message(), Buffer.from([4, 5, 6]));
      socket.terminate();
    });

    it('with an acknowledgement', async () => {
      const socket = await connected();
      socket.send('42456["message-with-ack",1,"2",{"3":[false]}]');
      assert.equal(await socket.message(), '43456[1,"2",{"3":[false]}]');
      socket.terminate();
    });

    it('with attachments and an acknowledgement', async () => {
      const socket = await connected();
      socket.send('451-789["message-with-ack",{"_placeholder":true,"num":0}]');
      socket.send(Buffer.from([9, 8]));
      assert.equal(await socket.message(), '461-789[{"_placeholder":true,"num":0}]');
      assert.deepEqual(await socket.message(), Buffer.from([9, 8]));
      socket.terminate();
    });

    for (const bad of ['4abc', '42{}', '42abc["message"]', '45']) {
      it(`${bad} closes the connection`, async () => {
        const socket = await connected();
        socket.send(bad);
        await socket.closed();
      });
    }
  });
});
