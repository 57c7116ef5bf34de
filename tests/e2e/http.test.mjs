// Plain HTTP beside the Socket.IO path: what each kind of route lets through, and what the backend sees.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { WebSocketServer } from 'ws';
import { Events, within } from './lib/events.mjs';
import { RawSocket, rawExchange } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const asked = new Events('backend HTTP');
let stage;
let sockets;

/** Tells what it saw; `/x/stream` answers as it is told, `/x/pieces` tells of each piece of a body. */
function application(req, res) {
  const url = new URL(req.url, 'http://backend');
  if (url.pathname.endsWith('/stream')) {
    res.writeHead(200, { 'content-type': 'text/plain' });
    res.flushHeaders();
    asked.push('stream', res);
    res.on('close', () => asked.push('stream closed', res.writableFinished));
    return;
  }
  let length = 0;
  req.on('data', (chunk) => {
    length += chunk.length;
    if (url.pathname.endsWith('/pieces')) asked.push('data', chunk.length);
  });
  req.on('end', () => {
    res.writeHead(200, { 'content-type': 'application/json', 'set-cookie': ['a=1', 'b=2'], 'x-backend': 'yes' });
    res.end(JSON.stringify({ method: req.method, url: req.url, headers: req.headers, raw: req.rawHeaders, length }));
  });
  req.on('error', () => {});
}

const bearer = (token) => ({ authorization: `Bearer ${token}` });

/** A request by the plain client of Node, which sends headers as they are given. */
async function ask(path, { method = 'GET', headers = {}, body } = {}) {
  const req = httpRequest(`${stage.url}${path}`, { method, headers, agent: false });
  req.end(body);
  const [res] = await within(once(req, 'response'), `${method} ${path}`);
  const chunks = await res.toArray();
  const text = Buffer.concat(chunks).toString();
  let seen;
  try {
    seen = JSON.parse(text);
  } catch {
    seen = undefined;
  }
  return { status: res.statusCode, headers: res.headers, text, seen };
}

before(async () => {
  const route = [
    { path: '/public', auth: 'pass' },
    { path: '/maybe', auth: 'optional' },
    { path: '/private', auth: 'require' },
    { path: '/private/open', auth: 'pass' },
    { path: '/never', auth: 'deny' },
    { path: '/ws', auth: 'require', websocket: true },
    { path: '/openws', auth: 'pass', websocket: true },
  ];
  const headers = { 'x-auth-subject': 'sub', 'x-auth-email': 'email', 'x-auth-roles': 'roles', 'x-auth-expires': 'exp' };
  stage = await Stage.open({
    backend: { http: application },
    config: { http: { route }, identity: { headers, assertion: { header: 'x-siogate-assertion' } } },
  });
  sockets = new WebSocketServer({ noServer: true });
  stage.backend.server.prependListener('upgrade', (req, socket, head) => {
    if (!/^\/(ws|openws|private)\b/.test(req.url)) return;
    sockets.handleUpgrade(req, socket, head, (ws) => {
      ws.send(JSON.stringify({ url: req.url, headers: req.headers }));
      ws.on('message', (data, binary) => ws.send(data, { binary }));
      ws.on('close', (code) => asked.push('ws closed', code));
    });
  });
});

after(() => stage?.close());

describe('routes', { concurrency: 4, skip: needsGate }, () => {
  it('pass: anybody, without identity', async () => {
    const { status, seen, headers } = await ask('/public/a?b=c', { headers: { 'x-own': 'kept' } });
    assert.equal(status, 200);
    assert.equal(seen.url, '/public/a?b=c');
    assert.equal(seen.headers['x-own'], 'kept');
    assert.equal(seen.headers['x-auth-subject'], undefined);
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
    assert.equal(headers['x-backend'], 'yes');
  });

  it('require: 401 with WWW-Authenticate and no error without a credential', async () => {
    const { status, headers, seen } = await ask('/private/a');
    assert.equal(status, 401);
    assert.match(headers['www-authenticate'], /^Bearer/);
    assert.doesNotMatch(headers['www-authenticate'], /error=/);
    assert.equal(seen?.method, undefined);
  });

  for (const [name, make] of [['expired', (i) => i.expired()], ['tampered', (i) => i.tampered()], ['garbled', () => 'a.b.c']]) {
    for (const path of ['/private/a', '/maybe/a']) {
      it(`${path}: 401 for a token ${name}`, async () => {
        const { status, headers, seen } = await ask(path, { headers: bearer(make(stage.issuer)) });
        assert.equal(status, 401);
        assert.match(headers['www-authenticate'], /^Bearer.*error="invalid_(token|request)"/);
        assert.equal(seen?.method, undefined);
      });
    }
  }

  it('require: identity in headers, the credential not passed on', async () => {
    const user = freshUser();
    const token = stage.issuer.sign({ sub: user, email: 'a@example.com', roles: ['admin', 'ops, night'] });
    const { status, seen } = await ask('/private/a', { headers: bearer(token) });
    assert.equal(status, 200);
    assert.equal(seen.headers['x-auth-subject'], user);
    assert.equal(seen.headers['x-auth-email'], 'a@example.com');
    assert.deepEqual(seen.headers['x-auth-roles'].split(',').map(decodeURIComponent), ['admin', 'ops, night']);
    assert.equal(seen.headers.authorization, undefined);
    assert.ok(!JSON.stringify(seen).includes(token));
  });

  for (const [place, build] of [
    ['query', (token) => [`/private/a?x=1&token=${token}&y=2`, {}]],
    ['cookie', (token) => ['/private/a', { cookie: `theme=dark; token=${token}; lang=en` }]],
  ]) {
    it(`require: the token in ${place} is taken out`, async () => {
      const user = freshUser();
      const token = stage.issuer.sign({ sub: user });
      const [path, headers] = build(token);
      const { status, seen } = await ask(path, { headers });
      assert.equal(status, 200);
      assert.equal(seen.headers['x-auth-subject'], user);
      assert.ok(!JSON.stringify(seen).includes(token));
      if (place === 'query') assert.equal(seen.url, '/private/a?x=1&y=2');
      else assert.equal(seen.headers.cookie, 'theme=dark; lang=en');
    });
  }

  it('optional: with and without', async () => {
    const user = freshUser();
    const without = await ask('/maybe/a');
    assert.deepEqual([without.status, without.seen.headers['x-auth-subject']], [200, undefined]);
    const withToken = await ask('/maybe/a', { headers: bearer(stage.issuer.sign({ sub: user })) });
    assert.deepEqual([withToken.status, withToken.seen.headers['x-auth-subject']], [200, user]);
  });

  it('deny, and no route at all', async () => {
    const headers = bearer(stage.issuer.sign());
    assert.equal((await ask('/never/a', { headers })).status, 403);
    assert.equal((await ask('/elsewhere', { headers })).status, 404);
    assert.equal((await ask('/privateer', { headers })).status, 404);
  });

  it('the longest path decides', async () => {
    assert.equal((await ask('/private/open/a')).status, 200);
    assert.equal((await ask('/private/openness')).status, 401);
  });

  it('every request is judged anew on a connection kept alive', async () => {
    const socket = connect(stage.gate.port, '127.0.0.1');
    await once(socket, 'connect');
    const answers = new Events('kept alive');
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
      const found = text.match(/^HTTP\/1\.1 (\d+)[\s\S]*?\r\n\r\n/);
      if (found) {
        answers.push('status', Number(found[1]));
        text = '';
      }
    });
    socket.on('error', () => {});
    const send = (extra) => socket.write(`GET /private/a HTTP/1.1\r\nHost: gate\r\n${extra}\r\n`);
    send(`Authorization: Bearer ${stage.issuer.sign()}\r\n`);
    assert.equal(await answers.next('status'), 200);
    send('');
    assert.equal(await answers.next('status'), 401);
    socket.destroy();
  });
});

describe('identity headers from outside', { concurrency: 4, skip: needsGate }, () => {
  const DISGUISES = [
    ['x-auth-subject', 'mallory'],
    ['X-Auth-Subject', 'mallory'],
    ['x_auth_subject', 'mallory'],
    ['X-AUTH_subject', 'mallory'],
    ['x.auth.subject', 'mallory'],
    ['x-siogate-assertion', 'forged'],
    ['x_siogate_assertion', 'forged'],
    ['X-Auth-Email', 'mallory@example.com'],
  ];
  const folded = (name) => name.toLowerCase().replaceAll(/[_.]/g, '-');

  for (const [header, value] of DISGUISES) {
    for (const path of ['/public/a', '/maybe/a', '/private/a']) {
      it(`${header} on ${path}`, async () => {
        const user = freshUser();
        const known = path !== '/public/a';
        const headers = { ...(known ? bearer(stage.issuer.sign({ sub: user })) : {}), [header]: value };
        const { status, seen } = await ask(path, { headers });
        assert.equal(status, 200);
        assert.ok(!JSON.stringify(seen.raw).includes(value), 'a spoofed value came through');
        const names = seen.raw.filter((_, i) => i % 2 === 0).map(folded);
        assert.equal(names.filter((name) => name === 'x-auth-subject').length, known ? 1 : 0);
        if (known) assert.equal(seen.headers['x-auth-subject'], user);
      });
    }
  }

  it('twice, and in a trailer', async () => {
    const token = stage.issuer.sign({ sub: 'alice' });
    const answer = await rawExchange(stage.gate.port, [
      'POST /private/a HTTP/1.1', 'Host: gate', `Authorization: Bearer ${token}`, 'Connection: close', 'Transfer-Encoding: chunked',
      'X-Auth-Subject: mallory', 'x-auth-subject: mallory', 'Trailer: x-auth-subject', '', '3', 'abc', '0', 'x-auth-subject: mallory', '', '',
    ].join('\r\n'));
    assert.match(answer, /^HTTP\/1\.1 200 /);
    assert.match(answer, /"x-auth-subject":"alice"/);
    assert.doesNotMatch(answer, /mallory/);
  });

  for (const tokens of ['x-auth-subject', 'close, X-Auth-Subject', 'x_auth_subject', 'authorization', 'x-siogate-assertion', 'cookie']) {
    it(`Connection: ${tokens}`, async () => {
      const token = stage.issuer.sign({ sub: 'alice' });
      const connection = tokens.includes('close') ? tokens : `${tokens}, close`;
      const answer = await rawExchange(stage.gate.port, `GET /private/a HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${token}\r\nConnection: ${connection}\r\n\r\n`);
      // Either answer is safe; the identity must not have been taken off on the way.
      assert.match(answer, /^HTTP\/1\.1 (200|400) /);
      if (answer.startsWith('HTTP/1.1 200')) assert.match(answer, /"x-auth-subject":"alice"/);
    });
  }

  it('hop-by-hop headers stay on their hop', async () => {
    const headers = { te: 'trailers, deflate', 'keep-alive': 'timeout=5', 'proxy-authorization': 'Basic x', 'x-hop': 'gone', connection: 'x-hop' };
    const { status, seen } = await ask('/public/a', { headers });
    assert.equal(status, 200);
    for (const name of ['keep-alive', 'proxy-authorization', 'x-hop']) assert.equal(seen.headers[name], undefined, name);
  });

  it('forwarded headers of an untrusted peer are replaced', async () => {
    const headers = { 'x-forwarded-for': '6.6.6.6', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'evil.example', 'x-real-ip': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-original-url': '/never', 'x-forwarded-uri': '/never' };
    const { seen } = await ask('/public/a', { headers });
    assert.equal(seen.headers['x-forwarded-for'], '127.0.0.1');
    assert.equal(seen.headers['x-forwarded-proto'], 'http');
    assert.ok(!JSON.stringify(seen.raw).includes('6.6.6.6'));
    assert.ok(!JSON.stringify(seen.raw).includes('evil.example'));
  });

  it('no claim can inject a header', async () => {
    const sub = 'a\r\nx-evil: 1';
    const { status, seen } = await ask('/private/a', { headers: bearer(stage.issuer.sign({ sub, email: 'ünï\u0000@x' })) });
    if (status !== 200) {
      assert.equal(status, 401);
      return;
    }
    assert.equal(seen.headers['x-evil'], undefined);
    assert.doesNotMatch(seen.headers['x-auth-subject'] ?? '', /[\r\n]/);
  });
});

describe('the signed assertion', { skip: needsGate }, () => {
  it('verifies by the published keys and carries who', async () => {
    const { createPublicKey, verify } = await import('node:crypto');
    const user = freshUser();
    const { seen } = await ask('/private/a', { headers: bearer(stage.issuer.sign({ sub: user })) });
    const token = seen.headers['x-siogate-assertion'];
    const [head, body, signature] = token.split('.');
    const header = JSON.parse(Buffer.from(head, 'base64url'));
    const claims = JSON.parse(Buffer.from(body, 'base64url'));
    assert.equal(claims.sub, user);
    assert.ok(claims.exp - Date.now() / 1000 <= 61, 'it lives too long');
    const jwks = await (await fetch(`${stage.url}/.well-known/siogate/jwks.json`)).json();
    const key = createPublicKey({ key: jwks.keys.find(({ kid }) => kid === header.kid), format: 'jwk' });
    const input = Buffer.from(`${head}.${body}`);
    const proof = Buffer.from(signature, 'base64url');
    const good = header.alg === 'EdDSA' ? verify(null, input, key, proof) : verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, proof);
    assert.ok(good, 'the assertion does not verify');
  });
});

describe('streaming', { concurrency: 1, skip: needsGate }, () => {
  const authorized = () => bearer(stage.issuer.sign());

  it('an answer comes through piece by piece', async () => {
    const req = httpRequest(`${stage.url}/private/stream`, { headers: authorized(), agent: false });
    req.end();
    const backend = await asked.next('stream');
    const [res] = await within(once(req, 'response'), 'the head of the answer');
    for (const piece of ['one', 'two', 'three']) {
      backend.write(piece);
      const [chunk] = await within(once(res, 'data'), `the piece ${piece}`);
      assert.equal(chunk.toString(), piece);
    }
    backend.end();
    await within(once(res, 'end'), 'the end of the answer');
  });

  it('a body goes through piece by piece', async () => {
    const req = httpRequest(`${stage.url}/private/pieces`, { method: 'POST', headers: authorized(), agent: false });
    for (const piece of ['aaa', 'bbbb', 'ccccc']) {
      req.write(piece);
      assert.equal(await asked.next('data'), piece.length);
    }
    req.end();
    const [res] = await within(once(req, 'response'), 'the answer');
    assert.equal(JSON.parse(Buffer.concat(await res.toArray()).toString()).length, 12);
  });

  it('8 MB both fixed and chunked', async () => {
    const body = Buffer.alloc(8_000_000, 'x');
    const fixed = await ask('/private/count', { method: 'POST', headers: { ...authorized(), 'content-length': body.length }, body });
    assert.equal(fixed.seen.length, body.length);
    const chunked = await ask('/private/count', { method: 'PUT', headers: { ...authorized(), 'transfer-encoding': 'chunked' }, body });
    assert.equal(chunked.seen.length, body.length);
  });

  it('a client that leaves ends the request at the backend', async () => {
    const req = httpRequest(`${stage.url}/private/stream`, { headers: authorized(), agent: false });
    req.on('error', () => {});
    req.end();
    const backend = await asked.next('stream');
    await within(once(req, 'response'), 'the head of the answer');
    backend.write('begun');
    req.destroy();
    await asked.next('stream closed', (finished) => finished === false);
  });

  it('a backend that breaks off ends the answer as broken', async () => {
    const req = httpRequest(`${stage.url}/private/stream`, { headers: authorized(), agent: false });
    req.end();
    const backend = await asked.next('stream');
    const [res] = await within(once(req, 'response'), 'the head of the answer');
    backend.write('begun');
    await within(once(res, 'data'), 'the first piece');
    backend.destroy();
    const aborted = await within(new Promise((done) => {
      res.on('error', () => done(true));
      res.on('end', () => done(!res.complete));
      res.resume();
    }), 'the broken end');
    assert.equal(aborted, true);
  });
});

describe('WebSockets beside Socket.IO', { concurrency: 4, skip: needsGate }, () => {
  const open = (path, headers = {}) => new RawSocket(stage.url, { path, headers });

  it('a route with websocket = true relays, with identity', async () => {
    const user = freshUser();
    const socket = open('/ws/a', { ...bearer(stage.issuer.sign({ sub: user })), 'x-auth-subject': 'mallory' });
    const seen = JSON.parse(await socket.message());
    assert.equal(seen.headers['x-auth-subject'], user);
    assert.equal(seen.headers.authorization, undefined);
    socket.send('text');
    assert.equal(await socket.message(), 'text');
    const bytes = Buffer.alloc(300_000, 7);
    socket.send(bytes);
    assert.ok(bytes.equals(await socket.message()));
    socket.ws.close(4000, 'bye');
    assert.equal(await asked.next('ws closed', (code) => code === 4000), 4000);
  });

  it('needs the credential that the route requires', async () => {
    assert.equal((await open('/ws/a').refused()).status, 401);
    assert.equal((await open('/ws/a', bearer(stage.issuer.expired())).refused()).status, 401);
    const anybody = open('/openws/a');
    assert.equal(JSON.parse(await anybody.message()).headers['x-auth-subject'], undefined);
    anybody.terminate();
  });

  it('is refused where the route does not say so', async () => {
    const { status } = await open('/private/a', bearer(stage.issuer.sign())).refused();
    assert.ok(status >= 400 && status < 500, `answered ${status}`);
  });

  it('ends at the end of the token', async () => {
    const exp = Math.floor(Date.now() / 1000) + 3;
    const socket = open('/ws/a', bearer(stage.issuer.sign({ exp })));
    await socket.message();
    const { at } = await socket.closed();
    const late = at - exp * 1000;
    assert.ok(late >= -20 && late <= 1500, `cut ${late} ms after exp`);
  });
});

describe('the admin door', { skip: needsGate }, () => {
  for (const path of ['/healthz', '/readyz', '/metrics']) {
    it(`${path} is on the admin listener only`, async () => {
      const inside = await fetch(`${stage.gate.adminUrl}${path}`);
      assert.equal(inside.status, 200);
      const text = await inside.text();
      assert.doesNotMatch(text, /user-\d/);
      assert.equal((await ask(path)).status, 404);
    });
  }
});
