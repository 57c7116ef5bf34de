// The doors: TLS on both sides, unix sockets, several backends, proxies in front.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer as createHttp, request as httpRequest } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Server } from 'socket.io';
import { Backend } from './lib/backend.mjs';
import { TRANSPORTS, client, credential } from './lib/clients.mjs';
import { DIRECT, Gate, trust } from './lib/gate.mjs';
import { Issuer } from './lib/issuer.mjs';
import { engineUrl } from './lib/raw.mjs';

describe('doors', { concurrency: 3, skip: DIRECT && 'needs the gate' }, () => {
  let issuer;
  let dir;

  before(async () => {
    issuer = await Issuer.start();
    dir = await mkdtemp(path.join(tmpdir(), 'siogate-doors-'));
  });

  after(async () => {
    await issuer?.stop();
    if (dir) await rm(dir, { recursive: true, force: true });
  });

  /** A certificate authority of its own, and a key and certificate for 127.0.0.1 and localhost by it. */
  function certificate(name) {
    const file = (end) => path.join(dir, `${name}.${end}`);
    const make = (...args) => execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', ...args], { stdio: 'pipe' });
    make('-subj', `/CN=${name} authority`, '-keyout', file('ca.key'), '-out', file('ca.crt'));
    make(
      '-subj', `/CN=${name}`, '-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-addext', 'basicConstraints=critical,CA:FALSE',
      '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost', '-keyout', file('key'), '-out', file('crt'),
    );
    return { key: file('key'), cert: file('crt'), ca: file('ca.crt') };
  }

  /** A small application on any listener. */
  function application(server) {
    const io = new Server(server);
    io.on('connection', (socket) => {
      socket.on('who', (reply) => reply(socket.handshake.headers));
      socket.on('echo', (value, reply) => reply(value));
    });
    return { stop: () => new Promise((done) => io.close(done)) };
  }

  async function visit(url, transport, place, extra) {
    const sub = `door-${transport}-${place}`;
    const connection = client('v4', url, { transport, ...credential(place, issuer.sign({ sub })), extra });
    try {
      const [socket] = connection.open(['/']);
      await socket.ready();
      await connection.settled();
      const big = 'x'.repeat(200_000);
      assert.deepEqual(await socket.call('echo', big), [big]);
      const [headers] = await socket.call('who');
      assert.equal(headers['x-auth-subject'], sub);
      return headers;
    } finally {
      await connection.close();
    }
  }

  it('TLS to the client and TLS to the backend, with a CA of its own', async () => {
    const front = certificate('front');
    const back = certificate('back');
    const server = createHttps({ key: readFileSync(back.key), cert: readFileSync(back.cert) });
    const app = application(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const gate = await Gate.start({
      server: { tls: { cert: front.cert, key: front.key } },
      upstream: { urls: [`https://127.0.0.1:${server.address().port}`], ca_file: back.ca },
      issuer: [trust(issuer)],
    });
    try {
      const url = gate.url.replace('http:', 'https:');
      for (const transport of Object.keys(TRANSPORTS)) {
        for (const place of ['header', 'auth']) {
          const headers = await visit(url, transport, place, { ca: readFileSync(front.ca) });
          assert.equal(headers['x-forwarded-proto'], 'https');
        }
      }
    } finally {
      await gate.stop();
      await app.stop();
    }
  });

  it('a backend whose certificate nobody vouches for is not spoken to', async () => {
    const back = certificate('unknown');
    let requests = 0;
    const server = createHttps({ key: readFileSync(back.key), cert: readFileSync(back.cert) }, () => {
      requests += 1;
    });
    server.on('upgrade', (_, socket) => {
      requests += 1;
      socket.destroy();
    });
    server.on('tlsClientError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const gate = await Gate.start({ upstream: { urls: [`https://127.0.0.1:${server.address().port}`] }, issuer: [trust(issuer)] }, { ready: false });
    try {
      const connection = client('v4', gate.url, { transport: 'websocket', ...credential('header', issuer.sign()) });
      const [socket] = connection.open(['/']);
      const { name } = await socket.events.first(['connect', 'refused', 'disconnect']);
      assert.notEqual(name, 'connect');
      assert.equal(requests, 0);
      await connection.close();
    } finally {
      await gate.stop();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  });

  it('a backend on a unix socket', async () => {
    const server = createHttp();
    const app = application(server);
    const file = path.join(dir, 'app.sock');
    server.listen(file);
    await once(server, 'listening');
    const gate = await Gate.start({ upstream: { urls: [`unix:${file}`] }, issuer: [trust(issuer)] });
    try {
      await visit(gate.url, 'upgrade', 'auth');
      await visit(gate.url, 'websocket', 'header');
    } finally {
      await gate.stop();
      await app.stop();
    }
  });

  it('the gate on a unix socket beside a port', async () => {
    const backend = await Backend.start();
    const file = path.join(dir, 'gate.sock');
    const gate = await Gate.start({ server: { listen: ['127.0.0.1:0', `unix:${file}`] }, upstream: { urls: [backend.url] }, issuer: [trust(issuer)] });
    try {
      const status = await new Promise((done, fail) => {
        const target = new URL(engineUrl('http://gate'));
        httpRequest({ socketPath: file, path: target.pathname + target.search, headers: { host: 'gate', authorization: `Bearer ${issuer.sign()}` } }, (res) => {
          res.resume();
          done(res.statusCode);
        }).on('error', fail).end();
      });
      assert.equal(status, 200);
    } finally {
      await gate.stop();
      await backend.stop();
    }
  });

  it('several backends take turns, and one that is gone is passed over', async () => {
    const [one, two] = [await Backend.start(), await Backend.start()];
    const gate = await Gate.start({ upstream: { urls: [one.url, two.url] }, issuer: [trust(issuer)] });
    const count = (backend) => backend.events.history.filter(([name]) => name.startsWith('connection ')).length;
    const enter = async () => {
      const connection = client('v4', gate.url, { transport: 'websocket', ...credential('auth', issuer.sign()) });
      const [socket] = connection.open(['/']);
      const { name } = await socket.events.first(['connect', 'refused', 'disconnect']);
      await connection.close();
      return name;
    };
    try {
      for (let i = 0; i < 10; i += 1) assert.equal(await enter(), 'connect');
      assert.equal(count(one) + count(two), 10);
      assert.ok(count(one) >= 3 && count(two) >= 3, `${count(one)} and ${count(two)}`);
      const before = count(two);
      await one.stop();
      for (let i = 0; i < 10; i += 1) assert.equal(await enter(), 'connect');
      assert.equal(count(two), before + 10);
    } finally {
      await gate.stop();
      await one.stop();
      await two.stop();
    }
  });

  it('forwarded headers are believed from a trusted proxy', async () => {
    const backend = await Backend.start();
    const gate = await Gate.start({ server: { trusted_proxies: ['127.0.0.0/8'] }, upstream: { urls: [backend.url] }, issuer: [trust(issuer)] });
    try {
      const headers = { 'x-forwarded-for': '198.51.100.7, 203.0.113.9', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'chat.example' };
      const placed = credential('header', issuer.sign());
      const connection = client('v4', gate.url, { transport: 'websocket', headers: { ...placed.headers, ...headers } });
      const [socket] = connection.open(['/']);
      await socket.ready();
      const [seen] = await socket.call('whoami');
      assert.match(seen.headers['x-forwarded-for'], /203\.0\.113\.9/);
      assert.equal(seen.headers['x-forwarded-proto'], 'https');
      assert.equal(seen.headers['x-forwarded-host'], 'chat.example');
      await connection.close();
      assert.equal((await gate.log.next('session ended')).client, '203.0.113.9');
    } finally {
      await gate.stop();
      await backend.stop();
    }
  });
});
