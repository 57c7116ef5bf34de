// Connection state recovery through the gate, and only for the subject to whom it belongs.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { PLACES, TRANSPORTS, freshTag } from './lib/clients.mjs';
import { RawPolling, RawSocket } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

let stage;

before(async () => {
  const options = { connectionStateRecovery: { maxDisconnectionDuration: 60_000, skipMiddlewares: true } };
  stage = await Stage.open({ backend: { options } });
  stage.backend.io.on('connection', (socket) => {
    const { tag } = socket.handshake.query;
    if (!socket.recovered) Object.assign(socket.data, { owner: tag });
    socket.join(`room ${tag}`);
    socket.on('owner', (reply) => reply(socket.data.owner, socket.recovered));
  });
});

after(() => stage?.close());

/** A client that has seen one event, and so knows an offset. */
async function seasoned(transport, place, user, options) {
  const fresh = () => stage.issuer.sign({ sub: user });
  const connection = stage.client('v4', transport, place, fresh(), options);
  if (place === 'auth') connection.auth = (give) => give({ token: fresh(), room: 'lobby' });
  const [socket] = connection.open(['/']);
  await socket.ready();
  await connection.settled();
  stage.backend.io.to(`room ${connection.tag}`).emit('missed', 'before');
  assert.equal((await socket.events.next('missed'))[0], 'before');
  assert.ok(socket.raw._pid, 'no pid came through');
  assert.ok(socket.raw._lastOffset, 'no offset came through');
  return { connection, socket };
}

async function recovers(transport, place, breakLine) {
  const { connection, socket } = await seasoned(transport, place, freshUser(), { reconnection: true });
  try {
    const { id } = socket;
    breakLine(connection, socket);
    await stage.backend.gone(connection.tag);
    stage.backend.io.to(`room ${connection.tag}`).emit('missed', 'while away');
    await socket.ready();
    assert.equal(socket.raw.recovered, true);
    assert.equal(socket.id, id);
    assert.equal((await socket.events.next('missed'))[0], 'while away');
    assert.deepEqual(await socket.call('owner'), [connection.tag, true]);
  } finally {
    await connection.close();
  }
}

async function notForAnother(transport, place) {
  const { connection, socket } = await seasoned(transport, place, freshUser());
  const mallory = freshUser();
  const thief = stage.client('v4', transport, place, stage.issuer.sign({ sub: mallory }), { tag: freshTag() });
  try {
    connection.drop();
    await stage.backend.gone(connection.tag);
    stage.backend.io.to(`room ${connection.tag}`).emit('missed', 'a secret');
    const stolen = thief.socket('/');
    stolen.raw._pid = socket.raw._pid;
    stolen.raw._lastOffset = socket.raw._lastOffset;
    thief.manager.connect();
    stolen.connect();
    await stolen.ready();
    assert.notEqual(stolen.raw.recovered, true);
    assert.notEqual(stolen.id, socket.id);
    assert.deepEqual(await stolen.call('owner'), [thief.tag, false]);
    const [seen] = await stolen.call('whoami');
    assert.equal(seen.headers['x-auth-subject'], mallory);
    // A later answer has come, so an event replayed at the connection would be here.
    assert.equal(stolen.events.count('missed'), 0);
  } finally {
    await thief.close();
    await connection.close();
  }
}

/** CONNECT as only the server's parser reads it: a blank for the type 0. */
async function notInDisguise(transport, blank) {
  const { connection, socket } = await seasoned('websocket', 'header', freshUser());
  const headers = { authorization: `Bearer ${stage.issuer.sign({ sub: freshUser() })}` };
  try {
    connection.drop();
    await stage.backend.gone(connection.tag);
    stage.backend.io.to(`room ${connection.tag}`).emit('missed', 'a secret');
    const connect = `4${blank}${JSON.stringify({ pid: socket.raw._pid, offset: socket.raw._lastOffset })}`;
    const options = { query: { tag: freshTag() }, headers };
    if (transport === 'websocket') {
      const thief = new RawSocket(stage.url, options);
      await thief.opened();
      thief.send(connect);
      assert.deepEqual((await thief.events.first(['message', 'close'])).value, { code: 1002, reason: 'protocol_error' });
    } else {
      const thief = new RawPolling(stage.url, options);
      await thief.opened();
      await thief.post(connect);
      await assert.rejects(thief.packet(), { status: 400 });
    }
  } finally {
    await connection.close();
  }
}

/** The owner's own pid with a token that is over. */
async function notWithoutToken(transport, place) {
  const user = freshUser();
  const { connection, socket } = await seasoned(transport, place, user);
  const late = stage.client('v4', transport, place, stage.issuer.expired({ sub: user }), { tag: freshTag() });
  try {
    connection.drop();
    await stage.backend.gone(connection.tag);
    const again = late.socket('/');
    again.raw._pid = socket.raw._pid;
    again.raw._lastOffset = socket.raw._lastOffset;
    late.manager.connect();
    again.connect();
    await again.refusal();
    assert.equal(stage.backend.connections(late.tag), 0);
  } finally {
    await late.close();
    await connection.close();
  }
}

describe('state recovery', { concurrency: 4 }, () => {
  for (const transport of ['websocket', 'polling']) {
    for (const blank of [' ', '\t', '\ufeff']) {
      const title = `${transport}: never by a CONNECT with ${JSON.stringify(blank)} for its type`;
      it(title, { skip: needsGate }, () => notInDisguise(transport, blank));
    }
  }
  for (const transport of Object.keys(TRANSPORTS)) {
    for (const place of PLACES) {
      const title = `v4 ${transport === 'upgrade' ? 'polling→websocket' : transport} ${place}`;
      it(`${title}: recovered after the backend's line broke`, () => recovers(transport, place, (_, socket) => socket.emit('drop')));
      it(`${title}: recovered after the client's line broke`, () => recovers(transport, place, (connection) => connection.drop()));
      it(`${title}: never without a live token`, { skip: needsGate }, () => notWithoutToken(transport, place));
      it(`${title}: never with the pid of another subject`, { skip: needsGate }, () => notForAnother(transport, place));
    }
  }
});
