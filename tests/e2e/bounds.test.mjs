// Bounds: slow peers, floods, limits; and nothing that outlives its session.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { TRANSPORTS, freshTag } from './lib/clients.mjs';
import { within } from './lib/events.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { RawPolling, RawSocket, rawExchange } from './lib/raw.mjs';
import { Stage, needsGate } from './lib/stage.mjs';

const PIECE = 'x'.repeat(64 * 1024);

/** Resident memory of the gate in MiB. */
function memory(gate) {
  const [, kib] = readFileSync(`/proc/${gate.child.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+) kB/);
  return Number(kib) / 1024;
}
const descriptors = (gate) => readdirSync(`/proc/${gate.child.pid}/fd`).length;

async function withStage(options, body) {
  const stage = await Stage.open(options);
  try {
    await body(stage);
  } finally {
    await stage.close();
  }
}

const limits = (table, more = {}) => ({ config: { limits: table, ...more } });

describe('bounds', { skip: needsGate }, () => {
  for (const transport of ['websocket', 'polling']) {
    it(`a ${transport} client that does not read slows down its own backend socket only`, () => withStage({}, async (stage) => {
      const tag = freshTag();
      const token = stage.issuer.sign();
      let stuck;
      if (transport === 'websocket') {
        stuck = new RawSocket(stage.url, { query: { tag } });
        await stuck.opened();
        stuck.send(`40${JSON.stringify({ token })}`);
        await stuck.message();
        stuck.ws.pause();
      } else {
        stuck = new RawPolling(stage.url, { query: { tag } });
        await stuck.opened();
        await stuck.post(`40${JSON.stringify({ token })}`);
        await stuck.packet();
      }
      const peer = await stage.backend.peer(tag);
      const before = memory(stage.gate);
      const { socket: line } = peer.conn.transport;
      for (let i = 0; i < 1600; i += 1) peer.emit('flood', PIECE);

      // Somebody else goes on at full speed meanwhile.
      const connection = stage.client('v4', 'websocket', 'auth', token);
      const [other] = connection.open(['/']);
      await other.ready();
      for (let i = 0; i < 200; i += 1) assert.deepEqual(await other.call('echo', i), [i]);
      await connection.close();

      assert.ok(line.bufferedAmount > 50_000_000, `the gate has swallowed it: ${line.bufferedAmount} left at the backend`);
      const grown = memory(stage.gate) - before;
      assert.ok(grown < 40, `the gate has grown by ${grown} MiB`);
      stuck.ws?.terminate();
      peer.conn.transport.socket.terminate();
    }));
  }

  it('a backend that does not read slows down its own client only', () => withStage({}, async (stage) => {
    const tag = freshTag();
    const socket = new RawSocket(stage.url, { query: { tag } });
    await socket.opened();
    socket.send(`40${JSON.stringify({ token: stage.issuer.sign() })}`);
    await socket.message();
    const peer = await stage.backend.peer(tag);
    peer.conn.transport.socket.pause();
    const before = memory(stage.gate);
    for (let i = 0; i < 1600; i += 1) socket.send(`42["push","${PIECE}"]`);
    const connection = stage.client('v4', 'websocket', 'auth', stage.issuer.sign());
    const [other] = connection.open(['/']);
    await other.ready();
    for (let i = 0; i < 200; i += 1) assert.deepEqual(await other.call('echo', i), [i]);
    await connection.close();
    assert.ok(socket.ws.bufferedAmount > 50_000_000, `${socket.ws.bufferedAmount} left at the client`);
    const grown = memory(stage.gate) - before;
    assert.ok(grown < 40, `the gate has grown by ${grown} MiB`);
    socket.terminate();
    peer.conn.transport.socket.terminate();
  }));

  it('unauthenticated sessions of one address are counted, and come free again', () => withStage(limits({ max_unauthenticated_per_ip: 3 }, { socketio: { connect_deadline: '30s' } }), async (stage) => {
    const waiting = [];
    for (let i = 0; i < 3; i += 1) {
      const socket = new RawSocket(stage.url);
      await socket.opened();
      waiting.push(socket);
    }
    const { status } = await new RawSocket(stage.url).refused();
    assert.ok([429, 503].includes(status), `answered ${status}`);
    const { status: polled } = await new RawPolling(stage.url).get();
    assert.equal(polled, status);
    // With a credential in the handshake there is nothing to wait for.
    const known = new RawSocket(stage.url, { headers: { authorization: `Bearer ${stage.issuer.sign()}` } });
    await known.opened();
    known.terminate();
    for (const socket of waiting) {
      socket.terminate();
      await stage.gate.log.next('session ended');
    }
    const again = new RawSocket(stage.url);
    await again.opened();
    again.terminate();
  }));

  it('max_sessions holds for all', () => withStage(limits({ max_sessions: 2 }), async (stage) => {
    const headers = { authorization: `Bearer ${stage.issuer.sign()}` };
    const open = [];
    for (let i = 0; i < 2; i += 1) {
      const socket = new RawSocket(stage.url, { headers });
      await socket.opened();
      open.push(socket);
    }
    const { name } = await new RawSocket(stage.url, { headers }).events.first(['refused', 'close']);
    assert.ok(['refused', 'close'].includes(name));
    open[0].terminate();
    await stage.gate.log.next('session ended', ({ subject }) => subject === 'alice');
    for (;;) {
      const next = new RawSocket(stage.url, { headers });
      const { name: what } = await next.events.first(['refused', 'message', 'close']);
      next.terminate();
      if (what === 'message') break;
    }
    open[1].terminate();
  }));

  it('100,000 packets in a payload', () => withStage({}, async (stage) => {
    const polling = new RawPolling(stage.url, { headers: { authorization: `Bearer ${stage.issuer.sign()}` }, query: { tag: freshTag() } });
    await polling.opened();
    await polling.post('40');
    await polling.packet();
    const { status } = await polling.post(Array(100_000).fill('4').join('\x1e'));
    assert.ok([200, 400, 413].includes(status), `answered ${status}`);
    await stage.backend.gone(polling.query.tag);
    assert.equal((await polling.get()).status, 400);
  }));

  it('bodies above the limit without a session are not read', () => withStage({}, async (stage) => {
    const answer = await rawExchange(stage.gate.port, `POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nContent-Length: 900000000\r\n\r\n4`);
    assert.match(answer, /^HTTP\/1\.1 4/);
  }));

  it('heads and bodies that trickle are given up', () => withStage(limits({ header_timeout: '1s', body_timeout: '1s' }), async (stage) => {
    const polling = new RawPolling(stage.url, { headers: { authorization: `Bearer ${stage.issuer.sign()}` } });
    await polling.opened();
    for (const text of [
      'GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ga',
      `POST /socket.io/?EIO=4&transport=polling&sid=${polling.sid} HTTP/1.1\r\nHost: gate\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n4`,
      '',
    ]) {
      const socket = connect(stage.gate.port, '127.0.0.1');
      socket.on('error', () => {});
      await once(socket, 'connect');
      const closed = once(socket, 'close');
      socket.resume();
      socket.write(text);
      await within(closed, `given up after ${JSON.stringify(text.slice(0, 20))}`, 8000);
    }
  }));

  it('heads that are too large', () => withStage({}, async (stage) => {
    const many = await rawExchange(stage.gate.port, `GET / HTTP/1.1\r\nHost: gate\r\nConnection: close\r\nX-Big: ${'x'.repeat(40_000)}\r\n\r\n`);
    assert.match(many, /^(HTTP\/1\.1 4(31|00|14) .*|)/);
    assert.doesNotMatch(many, /^HTTP\/1\.1 2/);
  }));

  it('nothing outlives its session: descriptors are back where they were', () => withStage({ backend: { options: { pingInterval: 1000 } } }, async (stage) => {
    const start = descriptors(stage.gate);
    for (const how of ['client', 'exp', 'backend']) {
      const exp = nowSeconds() + (how === 'exp' ? 4 : 300);
      const connections = [];
      for (let i = 0; i < 60; i += 1) {
        const transport = Object.keys(TRANSPORTS)[i % 3];
        const connection = stage.client('v4', transport, i % 2 ? 'auth' : 'header', stage.issuer.sign({ exp }));
        connections.push([connection, connection.open(['/'])[0]]);
      }
      for (const [, socket] of connections) await socket.ready();
      assert.ok(descriptors(stage.gate) > start + 60);
      for (const [connection, socket] of connections) {
        if (how === 'client') await connection.close();
        if (how === 'backend') socket.emit('drop');
      }
      for (const [connection, socket] of connections) {
        await stage.backend.gone(connection.tag);
        if (how !== 'client') await socket.disconnected();
        await connection.close();
      }
      // Closed sockets may linger a moment for their last words.
      const end = Date.now() + 8000;
      while (descriptors(stage.gate) > start + 3 && Date.now() < end) await new Promise((next) => setTimeout(next, 100));
      assert.ok(descriptors(stage.gate) <= start + 3, `${descriptors(stage.gate) - start} descriptors are left after ${how}`);
    }
  }));
});
