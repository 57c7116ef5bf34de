// A real browser: pages on the gate's origin and on others, CORS, preflight, cookies, Origin.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { DIRECT } from './lib/gate.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const BUNDLE = readFileSync(fileURLToPath(new URL('node_modules/socket.io-client/dist/socket.io.min.js', import.meta.url)));
const PAGE = '<!doctype html><meta charset="utf-8"><title>page</title><script src="/bundle.js"></script>';

const skip = !existsSync(BROWSER) && process.env.E2E_NO_BROWSER === '1' && `no browser at ${BROWSER}`;

/** A site of its own: the page, the client, and a cookie where it is asked for one. */
async function site(host = '127.0.0.1') {
  const server = createServer((req, res) => {
    if (req.url === '/bundle.js') return res.writeHead(200, { 'content-type': 'text/javascript' }).end(BUNDLE);
    return res.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
  });
  server.listen(0, host);
  await once(server, 'listening');
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
  };
  return { origin: `http://${host}:${server.address().port}`, stop };
}

/** Runs in the page: one stock client, what became of it, and an echo. */
function visit({ url, options, binary = true, untilEnd = false }) {
  const socket = window.io(url, { forceNew: true, reconnection: false, timeout: 10_000, ...options });
  const { engine } = socket.io;
  return new Promise((resolve) => {
    const finish = (result) => {
      socket.close();
      resolve(result);
    };
    socket.on('connect_error', (error) => {
      finish({ error: error.message, data: error.data, status: error.description, body: error.context?.responseText });
    });
    socket.on('disconnect', (reason, details) => {
      if (untilEnd) finish({ reason, code: details?.context?.code, word: details?.context?.reason, status: details?.description, at: Date.now() });
    });
    socket.on('connect', async () => {
      if (untilEnd) return;
      const bytes = new Uint8Array([0, 1, 30, 255]);
      const echo = await socket.emitWithAck('echo', 'from the page');
      const back = binary ? [...new Uint8Array((await socket.timeout(5000).emitWithAck('same', bytes.buffer)))] : [];
      const seen = await socket.emitWithAck('whoami');
      const last = options.transports.at(-1);
      const upgraded = () => socket.io.engine.transport.name === last;
      if (!upgraded()) await new Promise((done) => socket.io.engine.once('upgrade', done));
      finish({ id: socket.id, echo, back, seen, transport: socket.io.engine.transport.name, engine: Boolean(engine) });
    });
  });
}

const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] };

describe('in Chromium', { skip, concurrency: 1 }, () => {
  let browser;
  let friend;
  let stranger;
  let foreign;
  let stage;
  let byStatus;
  let own;

  before(async () => {
    friend = await site();
    // Another port is another origin but the same site: cookies ride along.
    stranger = await site();
    foreign = await site('localhost');
    const cors = DIRECT ? { cors: { origin: friend.origin, credentials: true } } : {};
    const http = (req, res) => {
      if (req.url === '/bundle.js') return res.writeHead(200, { 'content-type': 'text/javascript' }).end(BUNDLE);
      return res.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
    };
    stage = await Stage.open({ backend: { options: cors, http }, config: { socketio: { allowed_origins: [friend.origin] } } });
    stage.backend.io.on('connection', (socket) => socket.on('same', (bytes, reply) => reply(bytes)));
    if (!needsGate) {
      const shared = { backendInstance: stage.backend, issuerInstance: stage.issuer };
      byStatus = await Stage.open({ ...shared, config: { socketio: { allowed_origins: [friend.origin], on_reject: 'http' } } });
      own = await Stage.open({ ...shared, config: { http: { route: [{ path: '/', auth: 'pass' }] } } });
    }
    browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS, headless: true });
  });

  after(async () => {
    await browser?.close();
    for (const one of [own, byStatus, stage]) await one?.close();
    for (const one of [friend, stranger, foreign]) await one?.stop();
  });

  /** A fresh profile with this page open. */
  async function opened(origin, body, { cookie } = {}) {
    const context = await browser.newContext();
    try {
      if (cookie) await context.addCookies([{ name: 'token', value: cookie, domain: '127.0.0.1', path: '/', httpOnly: true, sameSite: 'Lax' }]);
      const page = await context.newPage();
      await page.goto(`${origin}/`);
      return await body(page, context);
    } finally {
      await context.close();
    }
  }

  const run = (origin, what, extra) => opened(origin, (page) => page.evaluate(visit, what), extra);

  function welcomed(result, user, transport) {
    assert.equal(result.error, undefined, JSON.stringify(result));
    assert.equal(result.echo, 'from the page');
    assert.deepEqual(result.back, [0, 1, 30, 255]);
    assert.equal(result.transport, TRANSPORTS[transport].at(-1));
    if (!needsGate) assert.equal(result.seen.headers['x-auth-subject'], user);
  }

  for (const transport of Object.keys(TRANSPORTS)) {
    const transports = TRANSPORTS[transport];

    it(`another origin that is allowed, ${transport}, auth payload`, async () => {
      const user = freshUser();
      const result = await run(friend.origin, { url: stage.url, options: { transports, auth: { token: stage.issuer.sign({ sub: user }) } } });
      welcomed(result, user, transport);
    });

    it(`another origin that is allowed, ${transport}, query`, async () => {
      const user = freshUser();
      const result = await run(friend.origin, { url: stage.url, options: { transports, query: { token: stage.issuer.sign({ sub: user }) } } });
      welcomed(result, user, transport);
    });

    it(`another origin that is allowed, ${transport}, cookie`, async () => {
      const user = freshUser();
      const cookie = stage.issuer.sign({ sub: user });
      const result = await run(friend.origin, { url: stage.url, options: { transports, withCredentials: true } }, { cookie });
      welcomed(result, user, transport);
    });

    for (const [name, origin] of [['another port', () => stranger.origin], ['another site', () => foreign.origin]]) {
      it(`${name} that is not allowed, ${transport}: refused, and the backend sees nothing`, { skip: needsGate }, async () => {
        const user = freshUser();
        const token = stage.issuer.sign({ sub: user });
        const options = { transports, auth: { token }, query: { tag: user } };
        const result = await run(origin(), { url: stage.url, options });
        assert.ok(result.error, JSON.stringify(result));
        assert.equal(stage.backend.connections(user), 0);
      });
    }

    it(`a cookie that rides along from an origin not allowed, ${transport}`, { skip: needsGate }, async () => {
      const user = freshUser();
      const options = { transports, withCredentials: true, query: { tag: user } };
      const result = await run(stranger.origin, { url: stage.url, options }, { cookie: stage.issuer.sign({ sub: user }) });
      assert.ok(result.error, JSON.stringify(result));
      assert.equal(stage.backend.connections(user), 0);
    });

    it(`an expired token is told to the page, ${transport}`, { skip: needsGate }, async () => {
      const result = await run(friend.origin, { url: stage.url, options: { transports, auth: { token: stage.issuer.expired() } } });
      assert.equal(result.data?.code, 'token_expired', JSON.stringify(result));
    });

    it(`the end of the token is told to the page, ${transport}`, { skip: needsGate }, async () => {
      // Long enough for a browser on a busy machine to be through with its upgrade.
      const exp = nowSeconds() + 7;
      const options = { transports, auth: { token: stage.issuer.sign({ exp }) } };
      const result = await run(friend.origin, { url: stage.url, options, untilEnd: true });
      if (transport === 'polling') assert.equal(result.status, 401, JSON.stringify(result));
      else assert.deepEqual([result.code, result.word], [4401, 'token_expired']);
      assert.ok(result.at - exp * 1000 <= 1500);
    });

    it(`the gate's own origin needs no list, ${transport}, cookie`, { skip: needsGate }, async () => {
      const user = freshUser();
      const options = { transports, query: { tag: user } };
      const result = await run(own.url, { options }, { cookie: own.issuer.sign({ sub: user }) });
      welcomed(result, user, transport);
    });

    it(`with no list any other origin is refused, ${transport}`, { skip: needsGate }, async () => {
      const user = freshUser();
      const options = { transports, withCredentials: true, query: { tag: user } };
      const result = await run(friend.origin, { url: own.url, options }, { cookie: own.issuer.sign({ sub: user }) });
      assert.ok(result.error, JSON.stringify(result));
      assert.equal(own.backend.connections(user), 0);
    });
  }

  it('extraHeaders on polling: the preflight is answered', async () => {
    const user = freshUser();
    const options = { transports: ['polling'], extraHeaders: { authorization: `Bearer ${stage.issuer.sign({ sub: user })}`, 'x-app': '1' } };
    welcomed(await run(friend.origin, { url: stage.url, options }), user, 'polling');
  });

  it('a refusal by status is readable across origins', { skip: needsGate }, async () => {
    const options = { transports: ['polling'], extraHeaders: { authorization: `Bearer ${stage.issuer.expired()}` } };
    const result = await run(friend.origin, { url: byStatus.url, options });
    assert.equal(result.status, 401, JSON.stringify(result));
    assert.equal(JSON.parse(result.body).message, 'token expired');
  });

  it('the client bundle comes through the gate without a session', async () => {
    await opened(friend.origin, async (page) => {
      await page.evaluate(() => delete window.io);
      await page.addScriptTag({ url: `${stage.url}/socket.io/socket.io.js` });
      assert.equal(await page.evaluate(() => typeof window.io), 'function');
    });
  });
});
