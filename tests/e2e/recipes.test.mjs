// The recipes of README.md, run as they stand there: only addresses are replaced.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { Backend } from './lib/backend.mjs';
import { client, credential } from './lib/clients.mjs';
import { Events, within } from './lib/events.mjs';
import { Gate, binaryPath, gateEnv } from './lib/gate.mjs';
import { Issuer, secretToken } from './lib/issuer.mjs';
import { CLIENT, IdentityProvider as OpaqueProvider } from './lib/oidc.mjs';
import { Browser as Visitor, IdentityProvider } from './lib/provider.mjs';
import { OPERATIONS, Program, README, between, block, blocks, filled } from './lib/readme.mjs';
import { Redis, needsRedis } from './lib/redis.mjs';
import { Auth0, Keycloak } from './lib/shaped.mjs';
import { freshUser, needsGate } from './lib/stage.mjs';

const BROWSER = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const noBrowser = !existsSync(BROWSER) && process.env.E2E_NO_BROWSER === '1' && `no browser at ${BROWSER}`;

const packages = (file) => readFileSync(fileURLToPath(new URL(`node_modules/${file}`, import.meta.url)), 'utf8');

const OWN_SERVER = between('\n## Put it before your own server\n', '\n### With an identity provider\n');
const [SERVER, CLIENT_PAGE] = blocks('js', OWN_SERVER);
const CONFIG = block('toml', OWN_SERVER);
const UPSTREAM = 'http://127.0.0.1:3000';
const PAGES = 'http://localhost:5173';
const GATE = 'http://127.0.0.1:8080';
const RECIPES = {
  oidc: between('\nAny provider of OpenID Connect whose access tokens are JWTs:\n', '\nAuth0. '),
  auth0: between('\nAuth0. ', '\nKeycloak. '),
  keycloak: between('\nKeycloak. ', '\n## Without JWTs\n'),
  express: between('\n**The session of your Express application**', '\n**Opaque tokens**'),
  opaque: between('\n**Opaque tokens**', '\n**An endpoint of yours**'),
  callout: between('\n**An endpoint of yours**', '\n## How the server reads the identity\n'),
  identity: between('\n## How the server reads the identity\n', '\n## Stay without reconnecting\n'),
  refresh: between('\n## Stay without reconnecting\n', '\n## Log out, and revoke\n'),
  logout: between('\n## Log out, and revoke\n', '\n## Ask it\n'),
};

/** "The `[[issuer]]` takes the place of the one with the secret." */
function withIssuer(recipe) {
  const [front, own] = CONFIG.split('[[issuer]]\n');
  assert.ok(own.startsWith('secret_env = '), own);
  return front + recipe;
}

/** Runs the binary to its end. */
function siogate(args, { cwd, env = {}, input = '' } = {}) {
  const run = new Promise((done) => {
    const child = execFile(binaryPath(), args, { cwd, env: gateEnv(env) }, (error, stdout, stderr) => {
      done({ code: error?.code ?? 0, stdout, stderr });
    });
    child.stdin.end(input);
  });
  return within(run, `siogate ${args.join(' ')}`, 30_000);
}

/** A directory for as long as it is needed. */
async function inDirectory(body) {
  const dir = await mkdtemp(path.join(tmpdir(), 'siogate-recipe-'));
  try {
    return await body(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** `siogate check` of a configuration in a directory of its own. */
const check = (config, { env, files = {} } = {}) => inDirectory(async (dir) => {
  for (const [name, text] of Object.entries({ ...files, 'config.toml': config })) await writeFile(path.join(dir, name), text, { mode: 0o600 });
  return siogate(['check'], { cwd: dir, env });
});

/** What a documented command prints. */
function shell(command, options = {}) {
  const run = new Promise((done, failed) => {
    execFile('bash', ['-c', command], options, (error, stdout) => (error ? failed(error) : done(stdout.trim())));
  });
  return within(run, command);
}

/** The file that a documented command makes. */
const made = (command, name) => inDirectory(async (cwd) => {
  await shell(command, { cwd });
  return readFileSync(path.join(cwd, name), 'utf8');
});

/** One socket of a stock client. */
async function entered(gate, transport, place, token, options = {}) {
  const connection = client('v4', gate.url, { transport, ...credential(place, token), ...options });
  const [socket] = connection.open(['/']);
  socket.raw.on('hello', (...args) => socket.events.push('hello', args));
  await socket.ready();
  await connection.settled();
  return { connection, socket };
}

async function refusal(gate, token) {
  const connection = client('v4', gate.url, { transport: 'websocket', ...credential('auth', token) });
  try {
    return (await connection.open(['/'])[0].refusal()).data?.code;
  } finally {
    await connection.close();
  }
}

describe('an identity provider in the browser', { skip: noBrowser || needsGate, concurrency: 1 }, () => {
  let browser;
  let backend;

  before(async () => {
    backend = await Backend.start();
    browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS, headless: true });
  });
  after(async () => {
    await browser?.close();
    await backend?.stop();
  });

  /** The application's pages, with its packages as a bundler would have them. */
  async function site() {
    const served = {
      '/socket.io-client.js': ['text/javascript', packages('socket.io-client/dist/socket.io.esm.min.js')],
      '/keycloak-js.js': ['text/javascript', packages('keycloak-js/lib/keycloak.js')],
      '/auth0.js': ['text/javascript', packages('@auth0/auth0-spa-js/dist/auth0-spa-js.production.esm.js')],
    };
    const imports = { 'socket.io-client': '/socket.io-client.js', 'keycloak-js': '/keycloak-js.js', '@auth0/auth0-spa-js': '/auth0.js' };
    served['/'] = ['text/html', `<!doctype html><meta charset="utf-8"><title>chat</title><link rel="icon" href="data:,">
      <script type="importmap">${JSON.stringify({ imports })}</script><body><script type="module" src="/app.js"></script>`];
    const server = createServer((req, res) => {
      const [type, body] = served[req.url.split('?')[0]] ?? [];
      if (!type) return res.writeHead(404).end();
      return res.writeHead(200, { 'content-type': type }).end(body);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const stop = async () => {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    };
    return { origin: `http://127.0.0.1:${server.address().port}`, served, stop };
  }

  /** The recipe's page: its login, the README's client, and what a test has to hear of both. */
  const program = (recipe, gate) => `${recipe}
${filled(CLIENT_PAGE, { [GATE]: gate.url })}
function showRefusal(word) { told("refused", word); }
window.socket = socket;
window.provider = typeof keycloak === "undefined" ? auth0 : keycloak;
socket.on("connect", () => told("connect", socket.io.engine.transport.name));
socket.on("disconnect", (reason, details) => told("disconnect", { reason, code: details?.context?.code, word: details?.context?.reason }));`;

  /** A tab of the application. */
  async function tab(context, origin, label) {
    const page = await context.newPage();
    const events = new Events(label);
    await page.exposeFunction('told', (name, value) => events.push(name, value));
    page.on('pageerror', (error) => events.push('error', error.message));
    page.on('console', (line) => events.push(line.type(), line.text()));
    await page.goto(`${origin}/`);
    return { page, events };
  }

  /** As a user at the pages of the provider. */
  async function logIn({ page, events }, user) {
    await page.waitForSelector('input[name=login]').catch((error) => {
      throw new Error(`no login at ${page.url()}: ${error.message}; happened: ${events.summary()}`);
    });
    await page.fill('input[name=login]', user);
    await page.fill('input[name=password]', 'any');
    await page.click('button[type=submit]');
  }

  /** Everything for a recipe: its provider, its gate by the README's own configuration, its application. */
  async function stand(start, { js, toml, more = '', addresses }) {
    const pages = await site();
    const idp = await start(pages.origin);
    const replaced = addresses(idp);
    const config = filled(withIssuer(toml), { [UPSTREAM]: backend.url, [PAGES]: pages.origin, ...replaced.toml });
    const gate = await Gate.start(config + more);
    idp.gate = gate.url;
    pages.served['/app.js'] = ['text/javascript', program(filled(js, replaced.js), gate)];
    const context = await browser.newContext();
    // The provider's pages want fonts from elsewhere.
    await context.route((url) => url.hostname !== '127.0.0.1', (route) => route.abort());
    const stop = async () => {
      await context.close();
      await gate.stop();
      await idp.stop();
      await pages.stop();
    };
    return { pages, idp, gate, context, config, stop };
  }

  /** The backend's view of the next socket of this user. */
  async function seen(user) {
    const { value } = await backend.events.first(['connection undefined /'], (socket) => socket.handshake.headers['x-auth-subject'] === user);
    return value.handshake.headers;
  }

  /** Logs in, and is in. */
  async function comesIn({ idp, pages, context }, user, label = 'the page') {
    const one = await tab(context, pages.origin, label);
    await logIn(one, user);
    const headers = await seen(user);
    await one.events.next('connect');
    assert.equal(headers['x-auth-issuer'], idp.issuer);
    assert.ok(!JSON.stringify(headers).includes('eyJ'), 'the backend saw a token');
    return { ...one, headers };
  }

  /** Out at the token's end, and in again by what the recipe's function gives out. */
  async function comesBack({ gate }, { events, headers }, user) {
    const gone = await events.next('disconnect');
    assert.deepEqual([gone.code, gone.word], [4401, 'token_expired']);
    await gate.sessionEnded('token_expired', (record) => record.subject === user);
    const later = await seen(user);
    await events.next('connect');
    assert.ok(Number(later['x-auth-expires']) > Number(headers['x-auth-expires']), 'the same token');
    assert.equal(events.count('refused'), 0, events.summary());
  }

  /** Another page in the place of the application. */
  const replacePage = (scene, edit) => {
    const [type, text] = scene.pages.served['/app.js'];
    scene.pages.served['/app.js'] = [type, edit(text)];
  };

  const keycloak = (more = {}, ttl = 3) => stand((page) => Keycloak.start({ page, ttl }), {
    toml: block('toml', RECIPES.keycloak),
    js: block('js', RECIPES.keycloak),
    addresses: (idp) => ({
      toml: { 'https://login.example.com/realms/chat': idp.issuer },
      js: { 'https://login.example.com': idp.origin },
    }),
    ...more,
  });

  const auth0 = (more = {}) => {
    const api = 'https://chat.example.com';
    const clientId = 'kX3vD5dJ0aQ8rT1yB7nW2mZ6cL4hS9pU';
    return stand((page) => Auth0.start({ page, api, clientId, ttl: 3 }), {
      toml: block('toml', RECIPES.auth0),
      js: block('js', RECIPES.auth0),
      addresses: (idp) => ({
        toml: { 'https://example.eu.auth0.com/': idp.issuer },
        // A tenant has https; this one says that it has not.
        js: { 'example.eu.auth0.com': idp.origin, 'clientId: "..."': `clientId: "${clientId}"` },
      }),
      ...more,
    });
  };

  it('Keycloak: keycloak-js logs in, and updateToken brings the socket back when its token has ended', async () => {
    const scene = await keycloak();
    try {
      const user = freshUser();
      const one = await comesIn(scene, user);
      const [claims] = scene.idp.given;
      assert.deepEqual([claims.typ, claims.azp, claims.aud], ['Bearer', 'chat-web', ['chat', 'account']]);
      await comesBack(scene, one, user);
      // "ID tokens are for the page that asked for the login."
      const idToken = await one.page.evaluate(() => window.provider.idToken);
      assert.equal(await refusal(scene.gate, idToken), 'audience_mismatch');
    } finally {
      await scene.stop();
    }
  });

  it('Keycloak: without the mapper its tokens are for somebody else, and the page is told', async () => {
    const scene = await keycloak();
    try {
      replacePage(scene, (text) => filled(text, { 'clientId: "chat-web"': 'clientId: "unmapped"' }));
      const one = await tab(scene.context, scene.pages.origin, 'the page');
      await logIn(one, freshUser());
      assert.equal(await one.events.next('refused'), 'audience_mismatch');
      assert.equal(scene.idp.given[0].aud, 'account');
    } finally {
      await scene.stop();
    }
  });

  it('Keycloak: who logs out in one tab loses the socket of the other', async () => {
    const toml = block('toml', RECIPES.logout);
    const scene = await keycloak({ toml }, 60);
    try {
      const user = freshUser();
      const one = await comesIn(scene, user);
      // The second tab finds the login of the first.
      const two = await tab(scene.context, scene.pages.origin, 'the other page');
      await seen(user);
      await two.events.next('connect');
      const asked = Date.now();
      await one.page.evaluate(() => {
        window.socket.disconnect();
        window.provider.logout();
      });
      await one.page.click('button[name=logout]');
      const { value: gone, at } = await two.events.first(['disconnect']);
      assert.deepEqual([gone.code, gone.word], [4401, 'logged_out'], JSON.stringify(scene.idp.failures));
      assert.ok(at - asked < 5000, `${at - asked} ms`);
      await scene.gate.sessionEnded('logged_out', (record) => record.subject === user);
    } finally {
      await scene.stop();
    }
  });

  it('Keycloak: the refresh of the README keeps the socket over the ends of three tokens', async () => {
    const [more] = blocks('toml', RECIPES.refresh);
    const [refresh] = blocks('js', RECIPES.refresh);
    const scene = await keycloak({ more: `\n${more}` });
    try {
      replacePage(scene, (text) => `${text}\n${refresh}`);
      const user = freshUser();
      const one = await comesIn(scene, user);
      for (let round = 0; round < 3; round += 1) await scene.gate.log.next('session refreshed');
      // The end of the token that came first is over: exp and the default leeway.
      const end = (Number(one.headers['x-auth-expires']) + 5) * 1000;
      assert.ok(Date.now() > end, `${end - Date.now()} ms before the first end`);
      const echo = await one.page.evaluate(() => window.socket.emitWithAck('echo', 'still here'));
      assert.equal(echo, 'still here');
      assert.equal(one.events.count('disconnect'), 0, one.events.summary());
      assert.equal(one.events.count('warning'), 0, one.events.summary());
    } finally {
      await scene.stop();
    }
  });

  it('Auth0: auth0-spa-js logs in, and getTokenSilently brings the socket back when its token has ended', async () => {
    const scene = await auth0();
    try {
      const user = freshUser();
      const one = await comesIn(scene, user);
      assert.ok(scene.idp.issuer.endsWith('/'));
      assert.deepEqual(scene.idp.given[0].aud, ['https://chat.example.com', `${scene.idp.issuer}userinfo`]);
      await comesBack(scene, one, user);
      // After a reload the page asks its provider, and nobody is asked to log in.
      await one.page.reload();
      await seen(user);
      await one.events.next('connect');
      assert.equal(new URL(one.page.url()).search, '');
    } finally {
      await scene.stop();
    }
  });

  it('Auth0: without the audience the token is one that only Auth0 can read, and the page is told', async () => {
    const scene = await auth0();
    try {
      replacePage(scene, (text) => filled(text, { 'audience: "https://chat.example.com", ': '' }));
      const one = await tab(scene.context, scene.pages.origin, 'the page');
      await logIn(one, freshUser());
      assert.equal(await one.events.next('refused'), 'credential_malformed');
      assert.equal(scene.idp.given.length, 0);
      // Where the page asked for `openid` alone, Auth0 gives out an encrypted token.
      const head = Buffer.from(JSON.stringify({ alg: 'dir', enc: 'A256GCM', iss: scene.idp.issuer })).toString('base64url');
      const sealed = `${head}..${randomBytes(12).toString('base64url')}.${randomBytes(90).toString('base64url')}.${randomBytes(16).toString('base64url')}`;
      assert.equal(await refusal(scene.gate, sealed), 'credential_malformed');
    } finally {
      await scene.stop();
    }
  });

  it('siogate check finds the keys of both, and says what is wrong with the slash', async () => {
    for (const start of [keycloak, auth0]) {
      const { idp, config, stop } = await start();
      try {
        const right = await check(config);
        assert.ok(right.stdout.includes(`issuer ${idp.issuer}: 1 keys`), right.stdout);
        assert.equal(right.code, 0, right.stdout);
        const other = idp.issuer.endsWith('/') ? idp.issuer.slice(0, -1) : `${idp.issuer}/`;
        const wrong = await check(filled(config, { [`issuer = "${idp.issuer}"`]: `issuer = "${other}"` }));
        assert.equal(wrong.code, 1);
        assert.match(wrong.stdout, /the document is for the issuer /);
      } finally {
        await stop();
      }
    }
  });
});

describe('the other recipes', { skip: needsGate, concurrency: 1 }, () => {
  it('JWT_SECRET: server, configuration and client as they stand there', async () => {
    const secret = randomBytes(32).toString('hex');
    const server = await Program.start(SERVER);
    const gate = await Gate.start(filled(CONFIG, { [UPSTREAM]: server.url }), { env: { JWT_SECRET: secret } });
    const user = freshUser();
    const now = Math.floor(Date.now() / 1000);
    const sign = (claims) => secretToken(secret, { sub: user, aud: 'chat', ...claims });
    // As the README says: a token that is over, a login, and one that ends while its socket lives.
    const page = await Program.start(`const tokens = ${JSON.stringify([sign({ exp: now - 60 }), sign({ exp: now + 1 }), sign({}), sign({ aud: 'other' })])};
const told = (...event) => console.log(JSON.stringify(event));
const getToken = async () => tokens.shift();
const login = async () => told("login");
const showRefusal = (word) => told("refused", word);
${filled(CLIENT_PAGE, { [GATE]: gate.url })}
socket.on("hello", (text) => told("hello", text));
socket.on("disconnect", (reason, details) => told("disconnect", [reason, details?.context?.code, details?.context?.reason]));
socket.on("hello", () => tokens.length === 1 && socket.disconnect().connect());`, { listens: false });
    try {
      await page.events.next('login');
      assert.equal(await page.events.next('hello'), `you are ${user}`);
      assert.deepEqual(await page.events.next('disconnect'), ['transport close', 4401, 'token_expired']);
      assert.equal(await page.events.next('hello'), `you are ${user}`);
      assert.equal(await page.events.next('refused'), 'audience_mismatch');
    } finally {
      await page.stop();
      await gate.stop();
      await server.stop();
    }
  });

  it('any provider of OpenID Connect: its access token opens the door, another audience does not', async () => {
    const idp = await IdentityProvider.start();
    const server = await Program.start(SERVER);
    const toml = filled(block('toml', RECIPES.oidc), { 'https://login.example.com': idp.url });
    const gate = await Gate.start(filled(withIssuer(toml), { [UPSTREAM]: server.url }));
    try {
      const user = freshUser();
      const { access_token: token, id_token: idToken } = await new Visitor(idp).login(await idp.register('http://localhost/'), user);
      for (const transport of ['polling', 'websocket', 'upgrade']) {
        const { connection, socket } = await entered(gate, transport, 'auth', token);
        assert.deepEqual(await socket.events.next('hello'), [`you are ${user}`]);
        await connection.close();
      }
      assert.equal(await refusal(gate, idToken), 'audience_mismatch');
    } finally {
      await gate.stop();
      await server.stop();
      await idp.stop();
    }
  });

  it('express-session and passport: its own curl lines, and the socket goes with the logout', { skip: needsRedis }, async () => {
    const redis = await Redis.start();
    const env = { SESSION_SECRET: randomBytes(32).toString('hex') };
    const app = await Program.start(filled(block('js', RECIPES.express), {
      'createClient()': `createClient({ socket: { path: ${JSON.stringify(redis.socket)} } })`,
    }), { env });
    const toml = filled(block('toml', RECIPES.express), { [UPSTREAM]: app.url, 'redis://127.0.0.1:6379': redis.url });
    // As fast as the README's half a minute, which is too long to wait for.
    const gate = await Gate.start(toml, { env, set: ['session_store[0].recheck=1s'] });
    const dir = await mkdtemp(path.join(tmpdir(), 'siogate-recipe-'));
    try {
      const [, login, open, logout] = block('console', RECIPES.express).split('\n$ curl ').map((part) => part.trim().split('\n'));
      const curl = async ([line, ...answer]) => [await shell(`curl -s ${filled(line, { [GATE]: gate.url })}`, { cwd: dir }), answer.join('\n')];
      const [hello, alsoHello] = await curl(login);
      assert.equal(hello, alsoHello);
      const [said, documented] = await curl(open);
      const names = (packet) => [packet[0], Object.keys(JSON.parse(packet.slice(1)))];
      assert.deepEqual(names(said), names(documented));
      const jar = readFileSync(path.join(dir, 'jar'), 'utf8');
      const [, cookie] = /\tconnect\.sid\t(\S+)/.exec(jar);
      const headers = { cookie: `connect.sid=${cookie}` };
      const { connection, socket } = await entered(gate, 'upgrade', 'none', '', { headers });
      assert.deepEqual(await socket.events.next('hello'), ['you are ada']);
      const [bye, alsoBye] = await curl(logout);
      assert.equal(bye, alsoBye);
      const { details } = await socket.disconnected();
      assert.deepEqual([details.context.code, details.context.reason], [4401, 'logged_out']);
      await connection.close();
    } finally {
      await gate.stop();
      await app.stop();
      await redis.stop();
      await rm(dir, { recursive: true, force: true });
    }
  });

  it('opaque tokens: asked about, let in, and out when they are withdrawn', async () => {
    const idp = await OpaqueProvider.start();
    const server = await Program.start(SERVER);
    const toml = filled(block('toml', RECIPES.opaque), {
      'https://login.example.com/oauth2/introspect': idp.introspectionUrl,
      'https://login.example.com/': idp.url,
    });
    const set = [`upstream.urls=${server.url}`, 'introspection[0].recheck=1s'];
    const gate = await Gate.start(toml, { env: { INTROSPECTION_SECRET: CLIENT.secret }, set });
    try {
      const user = freshUser();
      const token = await idp.token(user);
      const { connection, socket } = await entered(gate, 'websocket', 'auth', token);
      assert.deepEqual(await socket.events.next('hello'), [`you are ${user}`]);
      await idp.revoke(token);
      assert.equal((await socket.disconnected()).details.context.reason, 'revoked');
      assert.equal(await refusal(gate, token), 'revoked');
      await connection.close();
    } finally {
      await gate.stop();
      await server.stop();
      await idp.stop();
    }
  });

  it('an endpoint of yours: 2xx with a user is yes, and what is withdrawn ends its sockets', async () => {
    const who = await Program.start(`const keys = new Map([["key-of-ada", { id: "ada", role: "admin", paidUntil: ${Math.floor(Date.now() / 1000) + 300} }]]);
const whoHasThisKey = async (key) => (key === "withdraw" ? keys.clear() : keys.get(key));
${block('js', RECIPES.callout)}`);
    const backend = await Backend.start();
    const toml = filled(block('toml', RECIPES.callout), { 'http://127.0.0.1:4000': who.url });
    const gate = await Gate.start(toml, { set: [`upstream.urls=${backend.url}`, 'callout[0].recheck=1s'] });
    try {
      const { connection, socket } = await entered(gate, 'websocket', 'header', 'key-of-ada');
      const [{ headers }] = await socket.call('whoami');
      assert.deepEqual([headers['x-auth-subject'], headers['x-auth-role']], ['ada', 'admin']);
      await fetch(`${who.url}/who`, { headers: { authorization: 'Bearer withdraw' } });
      assert.equal((await socket.disconnected()).details.context.reason, 'revoked');
      assert.equal(await refusal(gate, 'key-of-ada'), 'revoked');
      await connection.close();
    } finally {
      await gate.stop();
      await backend.stop();
      await who.stop();
    }
  });

  it('the assertion: whoever does not come through the gate is not let in', async () => {
    const [headersToml, assertionToml] = blocks('toml', RECIPES.identity);
    const [command] = /openssl genpkey .*/.exec(assertionToml);
    const verify = blocks('js', RECIPES.identity).find((code) => code.includes('jwtVerify'));
    const secret = randomBytes(32).toString('hex');
    const key = await made(command, 'assertion.pem');
    // The program has to know the gate's address, and the gate the program's.
    const front = await Gate.start(CONFIG, { env: { JWT_SECRET: secret }, ready: false });
    const { address } = front;
    await front.stop();
    const server = await Program.start(`${SERVER}\n${filled(verify, { [GATE]: `http://${address}` })}
io.on("connection", (socket) => socket.emit("hello", socket.data.user));`);
    const config = `${filled(CONFIG, { [UPSTREAM]: server.url })}\n${headersToml}\n${assertionToml}`;
    const set = [`server.listen=${address}`];
    const gate = await Gate.start(config, { env: { JWT_SECRET: secret }, set, files: { 'assertion.pem': key } });
    try {
      const user = freshUser();
      const token = secretToken(secret, { sub: user, aud: 'chat', roles: ['admin', 'a,b'], org: { id: 'o1' } });
      const { connection, socket } = await entered(gate, 'websocket', 'auth', token);
      assert.deepEqual(await socket.events.next('hello'), [`you are ${user}`]);
      assert.deepEqual(await socket.events.next('hello'), [user]);
      await connection.close();
      const stranger = client('v4', server.url, { transport: 'websocket', headers: { 'x-auth-subject': user } });
      const { message } = await stranger.open(['/'])[0].refusal();
      assert.equal(message, 'not through the gate');
      await stranger.close();
    } finally {
      await gate.stop();
      await server.stop();
    }
  });

  it('refresh by curl: its answer has the form that stands there', async () => {
    const secret = randomBytes(32).toString('hex');
    const backend = await Backend.start();
    const [toml] = blocks('toml', RECIPES.refresh);
    const gate = await Gate.start(`${filled(CONFIG, { [UPSTREAM]: backend.url })}\n${toml}`, { env: { JWT_SECRET: secret } });
    try {
      const sign = () => secretToken(secret, { sub: 'ada', aud: 'chat' });
      const { connection, socket } = await entered(gate, 'websocket', 'auth', sign());
      const [line, documented] = block('console', RECIPES.refresh).split('\n');
      const env = { ...process.env, TOKEN: sign(), ENGINE_IO_SID: connection.engine.id };
      const said = JSON.parse(await shell(filled(line.slice(2), { 'https://chat.example.com': gate.url }), { env }));
      assert.deepEqual(Object.keys(said), Object.keys(JSON.parse(documented)));
      // The second in which the token was made may be over.
      assert.ok(said.ok && [0, 1].includes(JSON.parse(documented).expires_in - said.expires_in), JSON.stringify(said));
      assert.deepEqual(await socket.call('echo', 'here'), ['here']);
      await connection.close();
    } finally {
      await gate.stop();
      await backend.stop();
    }
  });

  it('shared signals: the transmitter of docs/operations.md', () => inDirectory(async (cwd) => {
    const recipe = between('\n## Shared signals\n', '\n## The log\n', OPERATIONS);
    const issuer = await Issuer.start();
    const backend = await Backend.start();
    const [commands, refused] = blocks('console', recipe);
    const addresses = { 'https://login.example.com/': issuer.url };
    await writeFile(path.join(cwd, 'push.mjs'), filled(block('js', recipe), addresses));
    const [first, , pushed] = commands.split('\n').filter((line) => /^\$ (node|siogate)/.test(line)).map((line) => line.slice(2));
    const env = { ...process.env, SIGNALS_TOKEN: randomBytes(32).toString('hex') };
    await shell(first, { cwd, env });
    const toml = filled(block('toml', recipe), { ...addresses, 'jwks_url = "https://signals.example.com/jwks.json"': 'jwks_file = "signals.json"' });
    const files = { 'signals.json': readFileSync(path.join(cwd, 'signals.json'), 'utf8') };
    const set = [`upstream.urls=${backend.url}`];
    const gate = await Gate.start(toml, { env: { SIGNALS_TOKEN: env.SIGNALS_TOKEN }, files, set });
    try {
      const token = issuer.sign({ sub: 'ada' });
      const { connection, socket } = await entered(gate, 'websocket', 'auth', token);
      const { connection: other, socket: bystander } = await entered(gate, 'websocket', 'auth', issuer.sign({ sub: 'bob' }));
      const [wrong, answer] = refused.trim().split('\n');
      assert.equal(await shell(filled(wrong.slice(2), { [GATE]: gate.url }), { cwd, env }), answer);
      assert.deepEqual(await socket.call('echo', 'here'), ['here']);
      assert.equal(await shell(filled(pushed, { [GATE]: gate.url }), { cwd, env }), '202');
      const { details } = await socket.disconnected();
      assert.deepEqual([details.context.code, details.context.reason], [4401, 'revoked']);
      assert.equal(await refusal(gate, token), 'revoked');
      assert.deepEqual(await bystander.call('echo', 'here'), ['here']);
      await connection.close();
      await other.close();
    } finally {
      await gate.stop();
      await backend.stop();
      await issuer.stop();
    }
  }));

  it('every block of TOML in README and docs/operations.md is one that siogate takes', async () => {
    const all = [...blocks('toml'), ...blocks('toml', OPERATIONS)];
    assert.ok(all.length >= 12, `${all.length} blocks`);
    const files = { 'assertion.pem': await made(/openssl genpkey .*/.exec(README)[0], 'assertion.pem') };
    const names = ['JWT_SECRET', 'SESSION_SECRET', 'INTROSPECTION_SECRET', 'SIGNALS_TOKEN'];
    const env = Object.fromEntries(names.map((name) => [name, randomBytes(32).toString('hex')]));
    for (const one of all) {
      // Nobody is asked; whether the words are right is the question.
      const local = one.replaceAll(/https:\/\/[a-z0-9.-]+/g, 'http://127.0.0.1:1').replaceAll(/127\.0\.0\.1:(3000|4000|6379)/g, '127.0.0.1:1');
      const vouched = /^\[\[(issuer|session_store|introspection|callout)\]\]/m.test(local);
      const text = [
        !/^\[upstream\]/m.test(local) && '[upstream]\nurls = ["http://127.0.0.1:1"]',
        local,
        !vouched && '[[issuer]]\nissuer = "http://127.0.0.1:1/"\nsecret_env = "JWT_SECRET"\naudience = ["chat"]',
      ].filter(Boolean).join('\n\n');
      const { stdout, stderr } = await check(text, { env, files });
      assert.match(stdout, /^configuration: ok$/m, `${text}\n${stderr}`);
      assert.doesNotMatch(stdout, /^warning: /m, text);
    }
  });

  it('a recipe that is gone from the README, or another one, fails its test', () => {
    assert.throws(() => between('\nno such recipe\n', '\n'), /says 0 times/);
    assert.throws(() => filled(CONFIG, { 'http://no.such/address': 'x' }), /not in the recipe/);
    assert.throws(() => block('toml', OWN_SERVER.repeat(2)), /2 blocks of toml/);
  });
});
