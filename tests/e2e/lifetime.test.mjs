// What happens at the end of a token, and that nothing of the session is left.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TRANSPORTS } from './lib/clients.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { RawPolling, RawSocket } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const WITHIN = 1500;
const CLOCK_GRAIN = 20;
/** Stock clients wait 1 s ± 50 % before they come back. */
const BACK_WITHIN = 6000;

let reconnect;
let disconnect;

const identity = { headers: { 'x-auth-subject': 'sub', 'x-auth-expires': 'exp', 'x-auth-generation': 'generation' } };

describe('the end of a token', { concurrency: 8, skip: needsGate }, () => {
  before(async () => {
    reconnect = await Stage.open({ config: { identity, socketio: { on_expiry: 'reconnect' } } });
    disconnect = await Stage.open({
      config: { identity, socketio: { on_expiry: 'disconnect' } },
      backendInstance: reconnect.backend,
      issuerInstance: reconnect.issuer,
    });
  });

  after(async () => {
    await disconnect?.close();
    await reconnect?.close();
  });

  /** A stock client whose `auth` is a function, and the tokens that it handed out. */
  function loggedIn(stage, transport, lifetimes) {
    const user = freshUser();
    const minted = [];
    const connection = stage.client('v4', transport, 'none', '', {
      reconnection: true,
      // The defaults of the library, for "within seconds" is about these.
      extra: { reconnectionDelay: 1000, reconnectionDelayMax: 5000 },
    });
    connection.auth = (give) => {
      const exp = nowSeconds() + lifetimes[Math.min(minted.length, lifetimes.length - 1)];
      minted.push(exp);
      give({ token: stage.issuer.sign({ sub: user, exp, generation: `g${minted.length}` }) });
    };
    const [socket] = connection.open(['/']);
    return { connection, socket, minted, user };
  }

  const onTime = (at, exp) => {
    const late = at - exp * 1000;
    assert.ok(late >= -CLOCK_GRAIN && late <= WITHIN, `cut ${late} ms after exp`);
  };

  for (const transport of Object.keys(TRANSPORTS)) {
    it(`on_expiry = "reconnect" over ${transport}: back within seconds with the new identity`, async () => {
      const { connection, socket, minted, user } = loggedIn(reconnect, transport, [3, 4, 300]);
      try {
        for (const generation of [1, 2]) {
          await socket.ready();
          await connection.settled();
          const [seen] = await socket.call('whoami');
          assert.equal(seen.headers['x-auth-generation'], `g${generation}`);
          assert.equal(seen.headers['x-auth-expires'], String(minted[generation - 1]));
          const { reason, at } = await socket.disconnected();
          assert.match(reason, /^transport (close|error)$/);
          onTime(at, minted[generation - 1]);
          assert.equal(socket.raw.active, true, 'the client has given up');
        }
        const exp = minted[1];
        await socket.ready();
        assert.ok(Date.now() - exp * 1000 < BACK_WITHIN, 'back too late');
        const [seen] = await socket.call('whoami');
        assert.equal(seen.headers['x-auth-generation'], 'g3');
        assert.equal(seen.headers['x-auth-subject'], user);
        assert.deepEqual(await socket.call('echo', 'back'), ['back']);
      } finally {
        await connection.close();
      }
    });

    it(`on_expiry = "disconnect" over ${transport}: stays down and is told why`, async () => {
      const { connection, socket, minted } = loggedIn(disconnect, transport, [3, 300]);
      try {
        await socket.ready();
        await connection.settled();
        await disconnect.backend.peer(connection.tag);
        const { reason, at } = await socket.disconnected();
        assert.equal(reason, 'io server disconnect');
        onTime(at, minted[0]);
        assert.equal(socket.raw.active, false, 'the client would come back by itself');
        assert.equal(connection.reconnecting, false);
        // To the backend it is a broken line, so that recovery stays possible.
        const { value } = await disconnect.backend.gone(connection.tag);
        assert.match(value, /^transport (close|error)$/);
        // The application decides to come back.
        socket.connect();
        await socket.ready();
        const [seen] = await socket.call('whoami');
        assert.equal(seen.headers['x-auth-generation'], 'g2');
      } finally {
        await connection.close();
      }
    });
  }

  /** A WebSocket session by hand, in by CONNECT. */
  async function rawSession(stage, exp) {
    const socket = new RawSocket(stage.url, { query: { tag: freshUser() } });
    await socket.opened();
    socket.send(`40${JSON.stringify({ token: stage.issuer.sign({ exp }) })}`);
    assert.match(await socket.message(), /^40\{"sid"/);
    return socket;
  }

  it('a WebSocket is closed with 4401 and the reason word', async () => {
    const exp = nowSeconds() + 3;
    const socket = await rawSession(reconnect, exp);
    const { value, at } = await socket.closed();
    assert.deepEqual(value, { code: 4401, reason: 'token_expired' });
    onTime(at, exp);
    assert.deepEqual(socket.events.history.filter(([name, data]) => name === 'message' && data !== '2').length, 2, 'something was sent before the close');
  });

  it('with "disconnect" DISCONNECT comes for each namespace, then 4401', async () => {
    const exp = nowSeconds() + 3;
    const socket = await rawSession(disconnect, exp);
    socket.send('40/admin,{}');
    assert.match(await socket.message(), /^40\/admin,\{"sid"/);
    const packets = [await socket.message(), await socket.message()];
    assert.deepEqual(packets.sort(), ['41', '41/admin,']);
    const { value } = await socket.closed();
    assert.deepEqual(value, { code: 4401, reason: 'token_expired' });
  });

  /** A polling session by hand, in by CONNECT. */
  async function rawPolling(stage, exp) {
    const polling = new RawPolling(stage.url, { query: { tag: freshUser() } });
    await polling.opened();
    const posted = await polling.post(`40${JSON.stringify({ token: stage.issuer.sign({ exp }) })}`);
    assert.deepEqual([posted.status, posted.body], [200, 'ok']);
    assert.match(await polling.packet(), /^40\{"sid"/);
    return polling;
  }

  it('a held poll is answered 401, and then the sid is unknown', async () => {
    const exp = nowSeconds() + 3;
    const polling = await rawPolling(reconnect, exp);
    const held = await polling.get();
    onTime(Date.now(), exp);
    assert.equal(held.status, 401);
    assert.equal(JSON.parse(held.body).code, 4);
    assert.equal(JSON.parse(held.body).message, 'token expired');
    const next = await polling.get();
    assert.equal(next.status, 400);
    assert.deepEqual(JSON.parse(next.body), { code: 1, message: 'Session ID unknown' });
    const post = await polling.post('42["echo",1]');
    assert.equal(post.status, 400);
  });

  it('with no poll held, the next request is answered 401', async () => {
    const user = freshUser();
    const exp = nowSeconds() + 3;
    const polling = new RawPolling(reconnect.url, { query: { tag: user } });
    await polling.opened();
    await polling.post(`40${JSON.stringify({ token: reconnect.issuer.sign({ exp }) })}`);
    assert.match(await polling.packet(), /^40\{"sid"/);
    await reconnect.backend.gone(user);
    const next = await polling.post('42["echo",1]');
    assert.equal(next.status, 401);
    assert.equal(JSON.parse(next.body).code, 4);
    assert.equal((await polling.get()).status, 400);
  });

  it('with "disconnect" a poll carries 41, and then the sid is unknown', async () => {
    const exp = nowSeconds() + 3;
    const polling = await rawPolling(disconnect, exp);
    const held = await polling.get();
    assert.deepEqual([held.status, held.body], [200, '41']);
    // The client has been told; what it may still ask is unknown or unauthorized.
    assert.ok([400, 401].includes((await polling.get()).status));
    assert.equal((await polling.get()).status, 400);
  });

  it('a token that ends before CONNECT is refused', async () => {
    const exp = nowSeconds() + 2;
    const token = reconnect.issuer.sign({ exp });
    const socket = new RawSocket(reconnect.url);
    await socket.opened();
    await new Promise((ended) => setTimeout(ended, exp * 1000 - Date.now() + 50));
    socket.send(`40${JSON.stringify({ token })}`);
    const answer = await socket.message();
    assert.match(answer, /^44\{/);
    assert.equal(JSON.parse(answer.slice(2)).data.code, 'token_expired');
    socket.terminate();
  });

  it('a session opened by header and never connected is cut too', async () => {
    const exp = nowSeconds() + 3;
    const headers = { authorization: `Bearer ${reconnect.issuer.sign({ exp })}` };
    const socket = new RawSocket(reconnect.url, { headers });
    await socket.opened();
    const { value, at } = await socket.closed();
    assert.equal(value.code, 4401);
    onTime(at, exp);
  });

  it('each end is told in the log with its reason', async () => {
    const exp = nowSeconds() + 2;
    const user = freshUser();
    const socket = new RawSocket(reconnect.url, { headers: { authorization: `Bearer ${reconnect.issuer.sign({ exp, sub: user })}` } });
    await socket.opened();
    await socket.closed();
    await reconnect.gate.sessionEnded('token_expired');
  });
});

describe('leeway and the lifetime cap', { concurrency: 4, skip: needsGate }, () => {
  let lenient;
  let capped;

  before(async () => {
    lenient = await Stage.open({ issuer: { leeway: '2s' } });
    const shared = { backendInstance: lenient.backend, issuerInstance: lenient.issuer };
    capped = await Stage.open({ ...shared, config: { session: { max_lifetime: '2s' } } });
  });

  after(async () => {
    await capped?.close();
    await lenient?.close();
  });

  async function cut(stage, exp) {
    const socket = new RawSocket(stage.url, { headers: { authorization: `Bearer ${stage.issuer.sign({ exp })}` } });
    await socket.opened();
    const opened = Date.now();
    const { value, at } = await socket.closed();
    return { ...value, at, opened };
  }

  it('leeway lengthens the session as it does the verdict', async () => {
    const exp = nowSeconds() + 2;
    const { code, reason, at } = await cut(lenient, exp);
    assert.deepEqual([code, reason], [4401, 'token_expired']);
    const late = at - (exp + 2) * 1000;
    assert.ok(late >= -CLOCK_GRAIN && late <= WITHIN, `cut ${late} ms after exp + leeway`);
  });

  for (const [name, exp] of [['a long token', nowSeconds() + 3600], ['the largest exp', Number.MAX_SAFE_INTEGER], ['an exp beyond u64', 1e18]]) {
    it(`max_lifetime ends ${name}`, async () => {
      const { code, reason, at, opened } = await cut(capped, exp);
      assert.deepEqual([code, reason], [4401, 'max_session']);
      const lived = at - opened;
      assert.ok(lived >= 2000 - 200 && lived <= 2000 + WITHIN, `lived ${lived} ms`);
    });
  }
});
