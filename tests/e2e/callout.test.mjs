// An endpoint of the operator's decides: by JSON or by headers, when a client comes and while it stays.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TRANSPORTS } from './lib/clients.mjs';
import { Endpoint, unclear } from './lib/endpoint.mjs';
import { nowSeconds } from './lib/issuer.mjs';
import { RawSocket } from './lib/raw.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const RECHECK = 1000;
const SLACK = 500;

describe('call-outs', { concurrency: 8, skip: needsGate }, () => {
  let base;
  before(async () => {
    base = await Stage.open({});
  });
  after(() => base?.close());

  async function asking(answer, more = {}, config = {}) {
    const endpoint = await Endpoint.start(answer);
    const callout = [{ url: endpoint.url, recheck: `${RECHECK}ms`, timeout: '400ms', ...more }];
    const http = { route: [{ path: '/', auth: 'require' }] };
    const stage = await Stage.open({
      config: { callout, http, ...config },
      backendInstance: base.backend,
      issuerInstance: base.issuer,
    });
    const stop = async () => {
      await stage.close();
      await endpoint.stop();
    };
    return { endpoint, stage, stop };
  }

  const opaque = (user) => `session-of-${user}-${'a'.repeat(20)}`;
  /** Knows everybody by the token itself. */
  const knows = (request) => {
    const [, user] = (request.headers.authorization ?? '').match(/^Bearer session-of-(.*)-a+$/) ?? [];
    return user ? { body: { sub: user, role: 'member', secret: 'x' } } : { status: 401 };
  };

  for (const transport of Object.keys(TRANSPORTS)) {
    for (const place of ['header', 'auth', 'query']) {
      it(`${transport}, ${place}: comes in by the endpoint's word, and goes by it`, async () => {
        const identity = { headers: { 'x-auth-subject': 'sub', 'x-auth-role': 'role' } };
        const { endpoint, stage, stop } = await asking(knows, { headers: ['user-agent', 'x-tenant'] }, { identity });
        const user = freshUser();
        const token = opaque(user);
        const connection = stage.client('v4', transport, place, token, { headers: { 'x-tenant': 't1', 'x-other': 'o' } });
        const [socket] = connection.open(['/']);
        try {
          await socket.ready();
          await connection.settled();
          const [seen] = await socket.call('whoami');
          assert.deepEqual([seen.headers['x-auth-subject'], seen.headers['x-auth-role']], [user, 'member']);
          assert.ok(!JSON.stringify(seen).includes(token), 'the backend saw the token');
          const { method, headers } = endpoint.asked[0];
          assert.equal(method, 'GET');
          assert.equal(headers.authorization, `Bearer ${token}`);
          assert.deepEqual([headers['x-tenant'], headers['x-other']], ['t1', undefined]);
          assert.equal(headers['x-forwarded-method'], 'GET');
          assert.match(headers['x-forwarded-uri'], /^\/socket\.io\/\?/);
          assert.ok(!headers['x-forwarded-uri'].includes(token));
          assert.equal(headers['x-forwarded-for'], '127.0.0.1');
          await new Promise((next) => setTimeout(next, 1.5 * RECHECK));
          assert.deepEqual(await socket.call('echo', 'here'), ['here']);
          // The same question again, also for a client that came in by its CONNECT.
          const { headers: later } = endpoint.asked.at(-1);
          assert.deepEqual([later.authorization, later['x-tenant']], [`Bearer ${token}`, 't1']);

          const ended = stage.gate.sessionEnded('revoked', (record) => record.subject === user);
          const before = Date.now();
          endpoint.answer = () => ({ status: 403 });
          const { details, body, at } = await socket.disconnected();
          assert.equal(transport === 'polling' ? JSON.parse(body).reason : details.context.reason, 'revoked');
          assert.ok(at - before <= RECHECK + SLACK, `${at - before} ms`);
          assert.equal((await ended).issuer, 'callout');
        } finally {
          await connection.close();
          await stop();
        }
      });
    }
  }

  it('401 and 403 refuse, everything else is no answer', async () => {
    const { endpoint, stage, stop } = await asking(() => ({ status: 401 }));
    try {
      const ask = async () => {
        const answer = await fetch(`${stage.url}/api`, { headers: { authorization: `Bearer ${opaque(freshUser())}` } });
        return [answer.status, (await answer.json()).reason];
      };
      for (const status of [401, 403]) {
        endpoint.answer = () => ({ status });
        assert.deepEqual(await ask(), [401, 'revoked']);
      }
      for (const [way, answer] of Object.entries({ ...unclear, 'nobody': () => ({ body: { user: 'x' } }) })) {
        endpoint.answer = answer;
        assert.deepEqual(await ask(), [503, 'keys_unavailable'], way);
      }
    } finally {
      await stop();
    }
  });

  it('p46: an identity in headers, and no other header of the answer anywhere', async () => {
    const { stage, stop } = await asking(
      () => ({
        headers: { 'x-user': 'alice', 'x-tenant': 't1', 'set-cookie': 'a=b', 'x-auth-role': 'admin', te: 'trailers', 'x-extra': 'e' },
        body: '',
      }),
      { subject_header: 'x-user', claims_from_headers: { tenant: 'x-tenant' }, method: 'POST' },
      { identity: { headers: { 'x-auth-subject': 'sub', 'x-auth-tenant': 'tenant' } } },
    );
    const connection = stage.client('v4', 'websocket', 'header', opaque('x'), { headers: { 'x-auth-tenant': 'forged' } });
    const [socket] = connection.open(['/']);
    try {
      await socket.ready();
      const [{ headers }] = await socket.call('whoami');
      assert.deepEqual([headers['x-auth-subject'], headers['x-auth-tenant']], ['alice', 't1']);
      for (const name of ['x-user', 'x-tenant', 'set-cookie', 'x-auth-role', 'te', 'x-extra']) {
        assert.equal(headers[name], undefined, name);
      }
    } finally {
      await connection.close();
      await stop();
    }
  });

  it('a cookie that somebody else understands: passed on whole, from pages of ours only', async () => {
    const { endpoint, stage, stop } = await asking(
      (request) => ({ status: request.headers.cookie?.includes('authjs.session-token=sealed') ? 200 : 401, body: { user: { id: 7 } } }),
      { headers: ['cookie'], credential: 'cookie:authjs.session-token', subject: '/user/id' },
      { credentials: { sources: ['cookie:authjs.session-token'] } },
    );
    try {
      const cookie = 'theme=dark; authjs.session-token=sealed; other=1';
      const connection = stage.client('v4', 'upgrade', 'none', '', { headers: { cookie } });
      const [socket] = connection.open(['/']);
      await socket.ready();
      const [seen] = await socket.call('whoami');
      assert.equal(seen.headers['x-auth-subject'], '7');
      assert.equal(endpoint.asked[0].headers.cookie, cookie);
      await connection.close();
      const evil = new RawSocket(stage.url, { headers: { cookie, origin: 'https://evil.example' } });
      assert.equal((await evil.refused()).status, 403);
    } finally {
      await stop();
    }
  });

  it('expires_at bounds the socket, to the second', async () => {
    const exp = nowSeconds() + 3;
    const { stage, stop } = await asking(() => ({ body: { sub: 'alice', expires_at: exp } }), { recheck: '60s' });
    const connection = stage.client('v4', 'websocket', 'auth', opaque('x'));
    const [socket] = connection.open(['/']);
    try {
      await socket.ready();
      const { details, at } = await socket.disconnected();
      assert.equal(details.context.reason, 'token_expired');
      assert.ok(at >= exp * 1000 - 1000 && at <= exp * 1000 + 1500, `${at - exp * 1000} ms`);
    } finally {
      await connection.close();
      await stop();
    }
  });

  it('Cache-Control bounds it too, and a new answer moves the bound', async () => {
    const { endpoint, stage, stop } = await asking(
      () => ({ headers: { 'cache-control': 'private, max-age=2' }, body: { sub: 'alice' } }),
      { recheck: '60s' },
    );
    const connection = stage.client('v4', 'websocket', 'auth', opaque('x'));
    const [socket] = connection.open(['/']);
    try {
      await socket.ready();
      await new Promise((next) => setTimeout(next, 4000));
      assert.deepEqual(await socket.call('echo', 'here'), ['here']);
      assert.ok(endpoint.asked.length >= 3, `${endpoint.asked.length} questions`);
      endpoint.answer = () => null;
      const dumb = Date.now();
      const { details, at } = await socket.disconnected();
      assert.equal(details.context.reason, 'token_expired');
      assert.ok(at - dumb <= 2000 + 1000 + SLACK, `${at - dumb} ms`);
    } finally {
      await connection.close();
      await stop();
    }
  });
});
