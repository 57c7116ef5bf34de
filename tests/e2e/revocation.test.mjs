// Withdrawing a right before its end: stock clients fall and stay out, on every replica, whatever becomes of Redis.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import { admin, metric } from './lib/admin.mjs';
import { client, credential, stopPython } from './lib/clients.mjs';
import { Gate, trust } from './lib/gate.mjs';
import { Redis, needsRedis } from './lib/redis.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const WITHIN = 1000;

let stage;

const revoke = (gate, body) => admin(gate, 'revocations', { method: 'POST', body: { issuer: stage.issuer.url, ...body } });

async function until(what, holds) {
  const end = Date.now() + 15_000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`not within 15 s: ${what}`);
    await new Promise((next) => setTimeout(next, 20));
  }
}

async function connected(gate, library, transport, token, place = 'auth', options = {}) {
  const connection = client(library, gate.url, { transport, ...credential(place, token), ...options });
  const [socket] = connection.open(['/']);
  // The request is emptied right after this event.
  socket.raw?.on('disconnect', (_, details) => {
    socket.told = details?.context?.reason || details?.context?.responseText || '';
  });
  await socket.ready();
  await connection.settled();
  return { connection, socket };
}

async function refusal(gate, library, transport, token, place = 'auth') {
  const connection = client(library, gate.url, { transport, ...credential(place, token) });
  try {
    const [socket] = connection.open(['/']);
    return await socket.refusal();
  } finally {
    await connection.close();
  }
}

describe('revocation by the admin API', { skip: needsGate }, () => {
  before(async () => {
    stage = await Stage.open();
  });
  after(async () => {
    await stopPython();
    await stage?.close();
  });

  const cases = [
    ['jti', (user) => ({ jti: `${user}-jti` })],
    ['sid', (user) => ({ sid: `${user}-sid` })],
    ['subject', (user) => ({ subject: user })],
  ];
  for (const [name, body] of cases) {
    for (const transport of ['polling', 'websocket', 'upgrade']) {
      it(`by ${name} over ${transport}: gone within a second, the word everywhere, and no way back`, async () => {
        const { gate, issuer } = stage;
        const user = freshUser();
        const token = issuer.sign({ sub: user, jti: `${user}-jti`, sid: `${user}-sid` });
        const { connection, socket } = await connected(gate, 'v4', transport, token);
        const bystander = await connected(gate, 'v4', transport, issuer.sign({ sub: freshUser() }));
        try {
          const listed = await admin(gate, `sessions?subject=${user}`);
          assert.equal(listed.sessions[0].transport, transport === 'polling' ? 'polling' : 'websocket');
          const before = await metric(gate, 'siogate_sessions_ended_total{by="gate",reason="revoked"}');
          const asked = Date.now();
          assert.equal((await revoke(gate, body(user))).ended, 1);
          const gone = await socket.disconnected();
          assert.ok(gone.at - asked < WITHIN, `${gone.at - asked} ms`);
          assert.match(socket.told, /revoked/);
          const record = await gate.sessionEnded('revoked', (r) => r.subject === user);
          assert.equal(record.session, listed.sessions[0].session);
          assert.equal(await metric(gate, 'siogate_sessions_ended_total{by="gate",reason="revoked"}'), before + 1);
          for (const place of ['auth', 'header']) {
            for (const back of ['polling', 'websocket']) {
              assert.equal((await refusal(gate, 'v4', back, token, place)).data.code, 'revoked');
            }
          }
          const { revocations } = await admin(gate, 'revocations');
          assert.ok(revocations.some((entry) => entry.reason === 'revoked' && entry.value.startsWith(user)));
          assert.deepEqual(await bystander.socket.call('echo', 1), [1]);
        } finally {
          await connection.close();
          await bystander.connection.close();
        }
      });
    }
  }

  for (const library of ['v2', 'v3', 'python']) {
    it(`${library}: falls, comes back by itself and is refused`, async () => {
      const { gate, issuer } = stage;
      const user = freshUser();
      const token = issuer.sign({ sub: user });
      const place = library === 'v2' ? 'header' : 'auth';
      const { connection, socket } = await connected(gate, library, 'websocket', token, place);
      try {
        await revoke(gate, { subject: user });
        await socket.disconnected();
        const refused = await refusal(gate, library, 'websocket', token, place);
        assert.ok(JSON.stringify([refused.data, refused.message]).includes('revoked'), JSON.stringify(refused));
      } finally {
        await connection.close();
      }
    });
  }

  it('a client in a reconnect loop never gets in again while its token is revoked', async () => {
    const { gate, issuer, backend } = stage;
    const user = freshUser();
    const token = issuer.sign({ sub: user });
    const options = { reconnection: true, extra: { reconnectionDelay: 1, reconnectionDelayMax: 5, randomizationFactor: 0 } };
    const { connection, socket } = await connected(gate, 'v4', 'websocket', token, 'header', options);
    try {
      await revoke(gate, { subject: user });
      const { name } = await socket.events.first(['refused']);
      assert.equal(name, 'refused');
      assert.equal(backend.connections(connection.tag), 1);
    } finally {
      await connection.close();
    }
  });

  it('a kicked session ends with that word, and its client may come back', async () => {
    const { gate, issuer } = stage;
    const user = freshUser();
    const token = issuer.sign({ sub: user });
    for (const transport of ['polling', 'websocket']) {
      const { connection, socket } = await connected(gate, 'v4', transport, token);
      const [{ session }] = (await admin(gate, `sessions?subject=${user}`)).sessions;
      assert.equal((await admin(gate, `sessions/${session}`, { method: 'DELETE' })).status, 204);
      await socket.disconnected();
      assert.match(socket.told, /kicked/);
      await gate.sessionEnded('kicked', (record) => record.session === session);
      await connection.close();
    }
    const { connection } = await connected(gate, 'v4', 'websocket', token);
    await connection.close();
  });

  it('500 sessions of one user fall within a second', async () => {
    const { gate, issuer } = stage;
    const user = freshUser();
    const token = issuer.sign({ sub: user });
    const all = await Promise.all(
      Array.from({ length: 500 }, () => new Promise((resolve, reject) => {
        const ws = new WebSocket(`${gate.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&token=${token}`);
        ws.onmessage = () => resolve(ws);
        ws.onerror = reject;
      })),
    );
    const closed = all.map((ws) => new Promise((done) => ws.addEventListener('close', (event) => done([event.code, event.reason, Date.now()]))));
    const asked = Date.now();
    assert.equal((await revoke(gate, { subject: user })).ended, 500);
    const ends = await Promise.all(closed);
    assert.ok(ends.every(([code, reason]) => code === 4401 && reason === 'revoked'));
    const last = Math.max(...ends.map(([, , at]) => at)) - asked;
    assert.ok(last < WITHIN, `${last} ms`);
  });
});

describe('two replicas, one Redis', { skip: needsGate || needsRedis }, () => {
  let redis;
  let config;
  let one;
  let two;

  const shared = (gate) => until('revocations are shared', async () => (await metric(gate, 'siogate_revocations_shared')) === 1);
  const start = async () => {
    const gate = await Gate.start(config);
    return gate;
  };

  before(async () => {
    stage = await Stage.open();
    redis = await Redis.start();
    config = {
      upstream: { urls: [stage.backend.url] },
      issuer: [trust(stage.issuer)],
      revocation: { redis_url: redis.url },
    };
    [one, two] = await Promise.all([start(), start()]);
    await Promise.all([shared(one), shared(two)]);
  });
  after(async () => {
    await one?.stop();
    await two?.stop();
    await redis?.stop();
    await stage?.close();
  });

  it('what one revokes ends sockets on the other within a second', async () => {
    for (const transport of ['polling', 'websocket']) {
      const user = freshUser();
      const token = stage.issuer.sign({ sub: user });
      const { connection, socket } = await connected(two, 'v4', transport, token);
      try {
        const asked = Date.now();
        assert.equal((await revoke(one, { subject: user })).ended, 0);
        const gone = await socket.disconnected();
        assert.ok(gone.at - asked < WITHIN, `${gone.at - asked} ms`);
        assert.match(socket.told, /revoked/);
        assert.equal((await refusal(two, 'v4', transport, token)).data.code, 'revoked');
      } finally {
        await connection.close();
      }
    }
  });

  it('one that was down learns it when it is back, whatever became of the one that knew', async () => {
    const user = freshUser();
    const token = stage.issuer.sign({ sub: user });
    await two.stop({ signal: 'SIGKILL' });
    await revoke(one, { subject: user });
    await until('it is written', async () => Number(await redis.cli('DBSIZE')) >= 3);
    await one.stop({ signal: 'SIGKILL' });
    two = await start();
    assert.equal((await refusal(two, 'v4', 'websocket', token)).data.code, 'revoked');
    one = await start();
    await Promise.all([shared(one), shared(two)]);
  });

  it('Redis killed and restarted, empty: nothing is lost, and everything counts at once where it was said', async () => {
    const users = [freshUser(), freshUser()];
    const tokens = users.map((sub) => stage.issuer.sign({ sub }));
    const there = await connected(one, 'v4', 'websocket', tokens[0]);
    const away = await connected(two, 'v4', 'websocket', tokens[1]);
    try {
      await redis.kill();
      for (const [n, gate] of [one, two].entries()) {
        assert.equal((await revoke(gate, { subject: users[n] })).ended, 1);
      }
      await Promise.all([there.socket.disconnected(), away.socket.disconnected()]);
      await redis.run();
      await Promise.all([shared(one), shared(two)]);
      for (const gate of [one, two]) {
        for (const token of tokens) {
          await until('it is known', async () => (await refusal(gate, 'v4', 'websocket', token).catch(() => ({}))).data?.code === 'revoked');
        }
      }
      assert.ok(Number(await redis.cli('DBSIZE')) >= 5, 'what was known before is written again');
    } finally {
      await there.connection.close();
      await away.connection.close();
    }
  });

  it('what somebody else writes there is no revocation, and does no harm', async () => {
    const { connection, socket } = await connected(one, 'v4', 'websocket', stage.issuer.sign({ sub: freshUser() }));
    try {
      for (const message of ['x', '{}', '{"v":1,"kind":"issuer"}', '['.repeat(10_000)]) {
        await redis.cli('PUBLISH', 'siogate:{revocations}:channel', message);
      }
      await until('they were looked at', async () => (await metric(one, 'siogate_revocations_misheard_total')) >= 4);
      assert.deepEqual(await socket.call('echo', 1), [1]);
    } finally {
      await connection.close();
    }
  });
});
