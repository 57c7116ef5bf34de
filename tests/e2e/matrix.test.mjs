// {socket.io-client 4, 3, 2, python-socketio} x {polling, websocket, upgrade} x {header, query, cookie, auth} x features,
// against unchanged Node servers. Names read `client transport place: feature`.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { OTHER_COOKIES, TRANSPORTS, placesOf, speaksEio3, stopPython } from './lib/clients.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const LIBRARIES = ['v4', 'v3', 'v2', 'python'];
/** How far behind `exp` a cut may be seen, in ms. */
const CUT_WITHIN = 1500;
/** Timers may fire within the rounding of the clock. */
const CLOCK_GRAIN = 20;

const combos = (libraries) => libraries.flatMap((library) => (
  Object.keys(TRANSPORTS).flatMap((transport) => placesOf(library).map((place) => ({ library, transport, place })))
));
const title = ({ library, transport, place }) => `${library} ${transport === 'upgrade' ? 'polling→websocket' : transport} ${place}`;

/** Opens a client, waits until it is in and on its last transport, runs the body, closes it. */
async function connected(stage, combo, body, { namespaces = ['/'], claims = {}, ...options } = {}) {
  const user = claims.sub ?? freshUser();
  const token = stage.issuer.sign({ sub: user, ...claims });
  const connection = stage.client(combo.library, combo.transport, combo.place, token, options);
  try {
    const sockets = connection.open(namespaces);
    for (const socket of sockets) await socket.ready();
    await connection.settled();
    await body({ connection, sockets, socket: sockets[0], user, token, stage, combo });
  } finally {
    await connection.close();
  }
}

/** What the application may see of who is there, and must not see of how he proved it. */
function checkIdentity(seen, { combo, connection, user, token }) {
  assert.equal(seen.query.tag, connection.tag);
  if (combo.library !== 'v2') assert.equal(seen.query.EIO, '4');
  if (needsGate) return;
  assert.equal(seen.headers['x-auth-subject'], user);
  assert.equal(seen.rawHeaders.filter((name) => name.toLowerCase() === 'x-auth-subject').length, 1);
  const everything = JSON.stringify(seen);
  for (const part of [token, ...token.split('.').slice(1)]) assert.ok(!everything.includes(part), 'the backend sees the token');
  assert.equal(seen.headers.authorization, undefined);
  assert.equal(seen.query.token, undefined);
  if (combo.place === 'cookie') assert.equal(seen.headers.cookie, OTHER_COOKIES.join('; '));
  if (combo.place === 'auth') assert.deepEqual(seen.auth, { room: 'lobby' });
}

const FEATURES = {
  'connect': (stage, combo) => connected(stage, combo, async (t) => {
    const [seen] = await t.socket.call('whoami');
    assert.equal(seen.ns, '/');
    assert.equal(t.socket.id, seen.id);
    checkIdentity(seen, t);
  }),

  'emit with ack': (stage, combo) => connected(stage, combo, async ({ socket }) => {
    const values = ['plain', 'ünïcödé ☃ 😀', 1.5, null, { deep: [true, { er: '' }] }];
    assert.deepEqual(await socket.call('echo', ...values), values);
    assert.deepEqual(await socket.call('ask', 'why'), ['answer to why']);
    await socket.emit('push', 'first');
    await socket.emit('push', 'second', 2);
    const pushed = [await socket.events.next('pushed'), await socket.events.next('pushed')];
    // python-socketio runs each handler in a thread of its own.
    if (combo.library === 'python') pushed.sort((a, b) => a.length - b.length);
    assert.deepEqual(pushed, [['first'], ['second', 2]]);
  }),

  'binary both ways': (stage, combo) => connected(stage, combo, async ({ socket }) => {
    const bytes = Buffer.from([0, 1, 0x1e, 0x34, 0xff, 0xfe, 0x80, 10, 13]);
    const [isBuffer, length, back] = await socket.call('binary', bytes);
    assert.equal(isBuffer, true);
    assert.equal(length, bytes.length);
    assert.deepEqual(Buffer.from(back), bytes);
    const [reversed, { nested }] = await socket.events.next('bytes');
    assert.deepEqual(Buffer.from(reversed), Buffer.from(bytes).reverse());
    assert.deepEqual(Buffer.from(nested), Buffer.from([0, 255, 0x1e]));
  }),

  '900 kB message': (stage, combo) => connected(stage, combo, async ({ socket }) => {
    const text = 'x'.repeat(899_000) + 'end';
    const [back] = await socket.call('echo', text);
    assert.ok(back === text, 'the text came back changed');
    // base64 on polling: 4/3 of it must stay under 1 MB.
    const bytes = randomBytes(combo.transport === 'polling' ? 749_000 : 900_000);
    const [, length, same] = await socket.call('binary', bytes);
    assert.equal(length, bytes.length);
    assert.ok(bytes.equals(Buffer.from(same)), 'the bytes came back changed');
  }),

  'own namespace': (stage, combo) => connected(stage, combo, async (t) => {
    const [seen] = await t.socket.call('whoami');
    assert.equal(seen.ns, '/admin');
    checkIdentity(seen, t);
    assert.deepEqual(await t.socket.call('echo', 'in admin'), ['in admin']);
    // Library 2 joins "/" unasked, the later ones must not.
    assert.equal(stage.backend.connections(t.connection.tag, '/'), speaksEio3(combo.library) ? 1 : 0);
  }, { namespaces: ['/admin'] }),

  'two namespaces': (stage, combo) => connected(stage, combo, async (t) => {
    const [main, admin] = t.sockets;
    const [atMain] = await main.call('whoami');
    const [atAdmin] = await admin.call('whoami');
    assert.deepEqual([atMain.ns, atAdmin.ns], ['/', '/admin']);
    assert.equal(atMain.conn, atAdmin.conn, 'two connections to the backend');
    checkIdentity(atMain, t);
    checkIdentity(atAdmin, t);
    // One leaves by the server's will, the other stays.
    await admin.emit('kick');
    await admin.disconnected();
    assert.deepEqual(await main.call('echo', 'still here'), ['still here']);
  }, { namespaces: ['/', '/admin'] }),

  'server-side disconnect': (stage, combo) => connected(stage, combo, async ({ socket, connection }) => {
    await socket.emit('kick');
    const { reason } = await socket.disconnected();
    assert.equal(reason, combo.library === 'python' ? 'server disconnect' : 'io server disconnect');
    const { value } = await stage.backend.gone(connection.tag);
    assert.equal(value, 'server namespace disconnect');
    if (combo.library !== 'python') assert.equal(connection.reconnecting, false);
  }, { reconnection: true }),

  'server closes the connection': (stage, combo) => connected(stage, combo, async ({ socket, connection }) => {
    await socket.emit('kick', true);
    await socket.disconnected();
    await stage.backend.gone(connection.tag);
  }),

  'client leaves': (stage, combo) => connected(stage, combo, async ({ connection }) => {
    await stage.backend.peer(connection.tag);
    await connection.close();
    const { value } = await stage.backend.gone(connection.tag);
    assert.match(value, /^(client namespace disconnect|transport close|transport error)$/);
  }),

  'reconnection': (stage, combo) => connected(stage, combo, async (t) => {
    const { socket, connection } = t;
    const [first] = await socket.call('whoami');
    await socket.emit('drop');
    const { reason } = await socket.disconnected();
    assert.match(reason, /^transport (close|error)$/);
    await socket.ready();
    const [second] = await socket.call('whoami');
    assert.notEqual(second.conn, first.conn);
    checkIdentity(second, t);
    assert.equal(stage.backend.connections(connection.tag), 2);
  }, { reconnection: true }),
};

/** A bad credential, and the word that says so. */
async function refused(stage, combo, token, code, namespaces = ['/']) {
  const connection = stage.client(combo.library, combo.transport, combo.place, token);
  try {
    const [socket] = connection.open(namespaces);
    const { message, data } = await socket.refusal();
    assert.equal(data?.code, code, `refused by ${message}`);
    assert.equal(typeof message, 'string');
    for (const ns of ['/', ...namespaces]) assert.equal(stage.backend.connections(connection.tag, ns), 0);
  } finally {
    await connection.close();
  }
}

/** A bad credential where the handshake is answered by HTTP. */
async function refusedByHttp(stage, combo) {
  const connection = stage.client(combo.library, combo.transport, combo.place, stage.issuer.expired());
  try {
    const [socket] = connection.open(['/']);
    const { message, error, body: text } = await socket.refusal();
    if (combo.library === 'python') assert.match(message, combo.transport === 'websocket' ? /Connection error/ : /token expired|401/);
    else if (combo.transport === 'websocket') assert.match(String(error.description?.message ?? error.description), /401|websocket error|TransportError|\[object/);
    else assert.equal(error.description, 401);
    if (combo.library === 'v4' && combo.transport !== 'websocket') {
      const body = JSON.parse(text);
      assert.equal(body.code, 4);
      assert.equal(body.message, 'token expired');
    }
    assert.equal(stage.backend.connections(connection.tag), 0);
  } finally {
    await connection.close();
  }
}

/** Ends not before `exp` and not long after it, at both ends. */
async function cutAtExpiry(stage, combo) {
  const exp = nowSeconds() + 4;
  await connected(stage, combo, async ({ socket, connection }) => {
    await stage.backend.peer(connection.tag);
    const { reason, details, at } = await socket.disconnected();
    const { at: backendAt, value } = await stage.backend.gone(connection.tag);
    for (const [side, time] of [['client', at], ['backend', backendAt]]) {
      const late = time - exp * 1000;
      assert.ok(late >= -CLOCK_GRAIN && late <= CUT_WITHIN, `the ${side} was cut ${late} ms after exp`);
    }
    assert.match(reason, /^transport (close|error)$/);
    assert.match(value, /^transport (close|error)$/);
    if (combo.library !== 'v4') return;
    if (combo.transport === 'polling') {
      assert.equal(details.description, 401);
      return;
    }
    assert.equal(details.context.code, 4401);
    assert.equal(details.context.reason, 'token_expired');
  }, { claims: { exp } });
}

let main;
let old;
let http;

before(async () => {
  main = await Stage.open();
  const shared = { issuerInstance: main.issuer };
  old = await Stage.open({ backend: { version: 2 }, config: { socketio: { probe: false } }, ...shared });
  if (!needsGate) http = await Stage.open({ backendInstance: main.backend, config: { socketio: { on_reject: 'http' } }, ...shared });
});

after(async () => {
  const ends = await Promise.allSettled([http?.close(), old?.close()]);
  ends.push(...(await Promise.allSettled([stopPython(), main?.close()])));
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed) throw failed.reason;
});

describe('features', { concurrency: 5 }, () => {
  for (const combo of combos(LIBRARIES)) {
    for (const [name, run] of Object.entries(FEATURES)) it(`${title(combo)}: ${name}`, () => run(main, combo));
  }
});

describe('features on a 2.5 server', { concurrency: 5 }, () => {
  for (const combo of combos(['v2'])) {
    for (const [name, run] of Object.entries(FEATURES)) it(`${title(combo)} on 2.5: ${name}`, () => run(old, combo));
  }
});

describe('refusals', { concurrency: 5, skip: needsGate }, () => {
  for (const combo of combos(LIBRARIES)) {
    it(`${title(combo)}: refusal with code`, () => refused(main, combo, main.issuer.expired(), 'token_expired'));
    if (combo.place !== 'auth') it(`${title(combo)}: refusal by status`, () => refusedByHttp(http, combo));
    if (speaksEio3(combo.library)) {
      it(`${title(combo)} on 2.5: refusal with code`, () => refused(old, combo, old.issuer.expired(), 'token_expired'));
    } else {
      it(`${title(combo)}: refusal with code in a namespace`, () => refused(main, combo, main.issuer.expired(), 'token_expired', ['/admin']));
    }
  }
});

describe('the end of the token', { concurrency: 24, skip: needsGate }, () => {
  for (const combo of combos(LIBRARIES)) it(`${title(combo)}: cut at exp`, () => cutAtExpiry(main, combo));
  for (const combo of combos(['v2'])) it(`${title(combo)} on 2.5: cut at exp`, () => cutAtExpiry(old, combo));
});
