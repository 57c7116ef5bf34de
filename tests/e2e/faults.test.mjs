// Backends that misbehave, and clients that break the framing: a clear answer, nothing lost, nobody else hurt.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { TRANSPORTS, client, credential, freshTag } from './lib/clients.mjs';
import { Events } from './lib/events.mjs';
import { DIRECT, Gate, trust } from './lib/gate.mjs';
import { Issuer } from './lib/issuer.mjs';
import { Stage } from './lib/stage.mjs';

const skip = DIRECT && 'needs the gate';
const OPEN = JSON.stringify({ sid: 'backend-sid-0000000', upgrades: [], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
const accept = (key) => createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

/** An unmasked frame of a server. */
function frame(text, opcode = 1) {
  const data = Buffer.from(text);
  const head = data.length < 126 ? Buffer.from([0x80 | opcode, data.length]) : Buffer.from([0x80 | opcode, 126, data.length >> 8, data.length & 255]);
  return Buffer.concat([head, data]);
}

const switching = (key, extra = '') => `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept(key)}\r\n${extra}\r\n`;

/** What a backend may do to a handshake. */
const FAULTS = {
  '101 without the accept key': (socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'),
  '101 with a wrong accept key': (socket) => socket.write(switching('another key')),
  '101 to h2c': (socket, key) => socket.write(switching(key).replace('Upgrade: websocket', 'Upgrade: h2c')),
  '200': (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
  '302': (socket) => socket.write('HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n'),
  '403': (socket) => socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope'),
  '500 with an endless body': (socket) => {
    socket.write('HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n');
    const more = () => socket.writable && socket.write(`1000\r\n${'x'.repeat(4096)}\r\n`, () => setImmediate(more));
    more();
  },
  'nothing': () => {},
  'half a head': (socket) => socket.write('HTTP/1.1 101 Swit'),
  'a head without end': (socket) => socket.write(`HTTP/1.1 101 Switching Protocols\r\n${'X: y\r\n'.repeat(20_000)}`),
  'garbage': (socket) => socket.write(Buffer.concat([Buffer.from([0, 255, 22, 3, 1]), Buffer.alloc(300, 0x41)])),
  'a closed door': (socket) => socket.destroy(),
  '101 and no OPEN': (socket, key) => socket.write(switching(key)),
  '101 and an end': (socket, key) => socket.end(switching(key)),
  'something else than OPEN': (socket, key) => socket.write(Buffer.concat([Buffer.from(switching(key)), frame('42["early"]')])),
  'an OPEN that is no JSON': (socket, key) => socket.write(Buffer.concat([Buffer.from(switching(key)), frame('0{"sid":')])),
  'a masked frame': (socket, key) => socket.write(Buffer.concat([Buffer.from(switching(key)), Buffer.from([0x81, 0x81, 1, 2, 3, 4, 0x31])])),
};

describe('backends that misbehave', { concurrency: 6, skip }, () => {
  let issuer;

  before(async () => {
    issuer = await Issuer.start();
  });
  after(() => issuer?.stop());

  /** A backend that answers each handshake by the fault, and a gate in front. */
  async function withFault(fault, body) {
    const dials = new Events('faulty backend');
    const open = new Set();
    const server = createServer((socket) => {
      open.add(socket);
      socket.on('close', () => {
        open.delete(socket);
        dials.push('closed');
      });
      socket.on('error', () => {});
      let head = '';
      socket.on('data', (chunk) => {
        if (head.includes('\r\n\r\n')) return;
        head += chunk.toString('latin1');
        if (head.includes('\r\n\r\n')) fault(socket, head.match(/sec-websocket-key: (.*)\r/i)?.[1]);
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${server.address().port}`;
    const gate = await Gate.start({
      upstream: { urls: [url], connect_timeout: '1s' },
      issuer: [trust(issuer)],
      socketio: { probe: false },
    }, { ready: false });
    try {
      await body(gate, dials);
      // Nothing is left open towards the backend.
      for (let i = 0; open.size > 0 && i < 8; i += 1) await dials.next('closed', () => true, 5000);
    } finally {
      await gate.stop();
      for (const socket of open) socket.destroy();
      await new Promise((done) => server.close(done));
    }
  }

  for (const [name, fault] of Object.entries(FAULTS)) {
    it(`${name}: the client is told in time, over each transport and place`, () => withFault(fault, async (gate) => {
      await Promise.all(Object.keys(TRANSPORTS).flatMap((transport) => ['header', 'auth'].map(async (place) => {
        const connection = client('v4', gate.url, { transport, ...credential(place, issuer.sign()) });
        try {
          const [socket] = connection.open(['/']);
          const { name: what } = await socket.events.first(['connect', 'refused', 'disconnect'], undefined, 8000);
          assert.notEqual(what, 'connect');
        } finally {
          await connection.close();
        }
      })));
    }));
  }

  for (const [name, last] of [
    ['dies in mid-frame', (socket) => socket.end(Buffer.from([0x81, 100, 0x34, 0x32]))],
    ['resets in mid-frame', (socket) => socket.write(Buffer.from([0x81, 100, 0x34]), () => socket.resetAndDestroy())],
    ['sends reserved bits', (socket) => socket.write(Buffer.from([0xf1, 1, 0x36]))],
    ['claims 2^63 bytes', (socket) => socket.write(Buffer.from([0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2]))],
    ['sends the close packet and leaves', (socket) => socket.end(frame('1'))],
    ['sends a close frame', (socket) => socket.write(frame(Buffer.from([0x03, 0xe9]), 8))],
  ]) {
    for (const transport of ['websocket', 'polling']) {
      it(`a backend that ${name}, ${transport}: the client sees its transport end`, () => {
        const let_in = (socket, key) => {
          socket.write(Buffer.concat([Buffer.from(switching(key)), frame(`0${OPEN}`)]));
          socket.once('data', () => {
            socket.write(frame('40{"sid":"namespace-sid"}'));
            socket.once('data', () => last(socket));
          });
        };
        return withFault(let_in, async (gate) => {
          const connection = client('v4', gate.url, { transport, ...credential('header', issuer.sign()) });
          try {
            const [socket] = connection.open(['/']);
            await socket.ready();
            socket.emit('go');
            const { reason } = await socket.disconnected();
            assert.match(reason, /^transport (close|error)$/);
          } finally {
            await connection.close();
          }
        });
      });
    }
  }
});

describe('clients that break the framing', { concurrency: 6, skip }, () => {
  let stage;

  before(async () => {
    stage = await Stage.open({ config: { socketio: { connect_deadline: '5s' } } });
  });
  after(() => stage?.close());

  /** A WebSocket by bytes: after 101 and OPEN. */
  async function byBytes({ authorized, tag }) {
    const socket = connect(stage.gate.port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, 'connect');
    const events = new Events('bytes');
    let seen = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      seen = Buffer.concat([seen, chunk]);
      events.push('data', seen);
    });
    socket.on('close', () => events.push('close', seen));
    const token = authorized ? `Authorization: Bearer ${stage.issuer.sign()}\r\n` : '';
    socket.write(`GET /socket.io/?EIO=4&transport=websocket&tag=${tag} HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n${token}\r\n`);
    await events.next('data', (all) => all.includes('"sid"'));
    return { socket, events };
  }

  /** A masked frame of a client. */
  function masked(opcode, payload, { fin = true, rsv = 0 } = {}) {
    const data = Buffer.from(payload);
    const mask = randomBytes(4);
    const length = data.length < 126 ? [0x80 | data.length] : [0x80 | 126, data.length >> 8, data.length & 255];
    return Buffer.concat([Buffer.from([(fin ? 0x80 : 0) | rsv | opcode, ...length]), mask, data.map((byte, i) => byte ^ mask[i % 4])]);
  }

  /** The close code in the last frame, where there is one. */
  function closeCode(bytes) {
    for (let at = bytes.length - 4; at >= 0; at -= 1) {
      if (bytes[at] === 0x88 && bytes[at + 1] >= 2 && at + 2 + bytes[at + 1] === bytes.length) return bytes.readUInt16BE(at + 2);
    }
    return undefined;
  }

  const huge = (first) => Buffer.from([first, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
  const BROKEN = {
    'an unmasked frame': [Buffer.from([0x81, 2, 0x34, 0x30]), 1002],
    'a frame that claims 2^63 bytes': [huge(0x82), [1002, 1009]],
    'a frame that claims 2^62 bytes': [Buffer.from([0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), [1002, 1009]],
    'reserved bits': [masked(1, '40', { rsv: 0x40 }), 1002],
    'a reserved opcode': [masked(3, '40'), 1002],
    'a reserved control opcode': [masked(0xb, '40'), 1002],
    'a fragmented ping': [masked(9, 'x', { fin: false }), 1002],
    'a ping of 126 bytes': [masked(9, 'x'.repeat(126)), 1002],
    'a continuation of nothing': [masked(0, 'x'), 1002],
    'a new message inside a fragmented one': [Buffer.concat([masked(1, '4', { fin: false }), masked(1, '40')]), 1002],
    'a close frame with one byte': [masked(8, 'x'), 1002],
    'a close frame with code 1005': [masked(8, Buffer.from([0x03, 0xed])), 1002],
  };

  for (const [name, [bytes, codes]] of Object.entries(BROKEN)) {
    for (const authorized of [false, true]) {
      it(`${name}, ${authorized ? 'in a session' : 'before the token'}`, async () => {
        const tag = freshTag();
        const { socket, events } = await byBytes({ authorized, tag });
        if (authorized) {
          socket.write(masked(1, '40'));
          await stage.backend.peer(tag);
          await events.next('data', (all) => all.includes('40{"sid"'));
        }
        socket.write(bytes);
        const all = await events.next('close');
        const code = closeCode(all);
        assert.ok(code === undefined || [codes].flat().includes(code), `closed with ${code}`);
        if (authorized) await stage.backend.gone(tag);
        else assert.equal(stage.backend.connections(tag), 0);
      });
    }
  }

  it('half a frame, then nothing: ended by the deadline, others unharmed', async () => {
    const tag = freshTag();
    const { socket, events } = await byBytes({ authorized: false, tag });
    socket.write(masked(1, '40{"token":"x"}').subarray(0, 7));
    await events.next('close');
    assert.equal(stage.backend.connections(tag), 0);
  });

  it('one byte at a time is still a message', async () => {
    const tag = freshTag();
    const { socket, events } = await byBytes({ authorized: true, tag });
    socket.setNoDelay(true);
    socket.write(masked(1, '40'));
    await events.next('data', (data) => data.includes('40{"sid"'));
    const all = Buffer.concat([masked(1, '420["echo","slowly"]'), masked(1, '42', { fin: false }), masked(0, '1["echo",', { fin: false }), masked(9, 'p'), masked(0, '"in parts"]')]);
    for (const byte of all) await new Promise((sent) => socket.write(Buffer.from([byte]), sent));
    const seen = await events.next('data', (data) => data.includes('431["in parts"]'));
    assert.ok(seen.includes('430["slowly"]'));
    socket.destroy();
    await stage.backend.gone(tag);
  });
});
