// New rights for live sessions whose user somebody else vouches for: opaque tokens, and the cookie of a session store.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Endpoint, unclear } from './lib/endpoint.mjs';
import { Visitor } from './lib/express_app.mjs';
import { issuedTokens, nowSeconds } from './lib/issuer.mjs';
import { CLIENT, IdentityProvider } from './lib/oidc.mjs';
import { needsRedis } from './lib/redis.mjs';
import { SessionStage } from './lib/session_stage.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const EVENT = 'siogate:refresh';
const PATH = '/.siogate/refresh';
const RECHECK = 600;
const WAYS = ['websocket', 'polling'];

const wait = (ms) => new Promise((next) => setTimeout(next, ms));

/** An introspection endpoint that knows what it is told. */
class Register {
  #known = new Map();
  #number = 0;

  #odd = new Map();

  static async start() {
    const register = new Register();
    register.endpoint = await Endpoint.start((request) => register.#answer(Register.token(request)));
    return register;
  }

  static token(request) {
    return new URLSearchParams(request.body).get('token');
  }

  #answer(token) {
    const odd = this.#odd.get(token);
    return odd ? odd() : { body: this.#known.get(token) ?? { active: false } };
  }

  /** A token of this user, for so many seconds. */
  give(sub, seconds = 300) {
    const token = `opaque-${process.pid}-${(this.#number += 1)}-${'a'.repeat(24)}`;
    this.#known.set(token, { active: true, sub, exp: nowSeconds() + seconds });
    issuedTokens.add(`x.${token}.${token}`);
    return token;
  }

  withdraw(token) {
    this.#known.delete(token);
  }

  /** What it answers about this token instead, until it is told otherwise. */
  odd(token, answer) {
    if (answer) this.#odd.set(token, answer);
    else this.#odd.delete(token);
  }

  /** Resolves at the next question about this token. */
  async asked(token) {
    const from = this.endpoint.asked.length;
    await this.endpoint.events.next('asked', (request) => Register.token(request) === token && this.endpoint.asked.indexOf(request) >= from);
  }

  /** Asked twice: a session that lives by this token outlived the first answer. */
  async kept(token) {
    await this.asked(token);
    await this.asked(token);
  }

  /** How often it was asked about this token. */
  times(token) {
    return this.endpoint.asked.filter((request) => Register.token(request) === token).length;
  }
}

describe('refresh by an opaque token', { skip: needsGate, concurrency: 8 }, () => {
  let register;
  let stage;

  before(async () => {
    register = await Register.start();
    const introspection = [{
      url: register.endpoint.url,
      issuer: 'the endpoint',
      client_id: CLIENT.id,
      client_secret_env: 'GATE_SECRET',
      recheck: `${RECHECK}ms`,
      timeout: '400ms',
      grace: '60s',
      cache: '0s',
      negative_cache: '0s',
    }];
    const config = { introspection, session: { refresh: { enabled: true } } };
    stage = await Stage.open({ config, env: { GATE_SECRET: CLIENT.secret } });
  });
  after(async () => {
    await stage?.close();
    await register?.endpoint.stop();
  });

  async function entered(transport, token) {
    const connection = stage.client('v4', transport, 'auth', token);
    const [socket] = connection.open(['/']);
    await socket.ready();
    await connection.settled();
    return { connection, socket };
  }

  /** Both ways to ask, with one answer: `{ ok, reason, ... }`, and the status where there is one. */
  const asking = {
    event: async ({ socket }, token) => (await socket.call(EVENT, token))[0],
    http: async ({ connection }, token) => {
      const response = await fetch(stage.url + PATH, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
        body: JSON.stringify({ session: connection.engine.id }),
      });
      return { status: response.status, retry: response.headers.get('retry-after'), ...(await response.json()) };
    },
  };

  const alive = async ({ socket }) => assert.deepEqual(await socket.call('echo', 'here'), ['here']);

  for (const transport of WAYS) {
    for (const [way, refresh] of Object.entries(asking)) {
      const test = (name, body) => it(`${transport}, ${way}: ${name}`, async () => {
        const user = freshUser();
        const mine = [];
        const enter = async (token) => {
          const one = await entered(transport, token);
          mine.push(one);
          return one;
        };
        try {
          await body(user, enter);
        } finally {
          for (const { connection } of mine) await connection.close();
        }
      });

      test('the session lives beyond its first token, and by the new one alone', async (user, enter) => {
        const [old, fresh] = [register.give(user, 3), register.give(user, 60)];
        const one = await enter(old);
        const answer = await refresh(one, fresh);
        assert.equal(answer.ok, true, JSON.stringify(answer));
        assert.ok(Math.abs(answer.expires_at - nowSeconds() - 60) <= 1, JSON.stringify(answer));
        // The old one is withdrawn, and its time passes; nobody asks about it any more.
        register.withdraw(old);
        const before = register.times(old);
        await register.asked(fresh);
        await wait(3500);
        await alive(one);
        assert.equal(register.times(old), before, 'the old token was asked about');
        assert.ok(register.times(fresh) >= 3, `${register.times(fresh)} questions about the new one`);
        const ended = stage.gate.sessionEnded('revoked', (record) => record.subject === user);
        register.withdraw(fresh);
        await one.socket.disconnected();
        await ended;
      });

      test('sockets of the old token that were not refreshed go with it', async (user, enter) => {
        const [old, fresh] = [register.give(user), register.give(user)];
        const one = await enter(old);
        const two = await enter(old);
        assert.equal((await refresh(one, fresh)).ok, true);
        register.withdraw(old);
        await two.socket.disconnected();
        await register.kept(fresh);
        await alive(one);
      });

      test('an inactive token is revoked, and the session goes on by the old one', async (user, enter) => {
        const [old, fresh] = [register.give(user), register.give(user)];
        const one = await enter(old);
        register.withdraw(fresh);
        const { ok, reason, status } = await refresh(one, fresh);
        assert.deepEqual([ok, reason, status], [false, 'revoked', way === 'http' ? 401 : undefined]);
        await register.kept(old);
        await alive(one);
        register.withdraw(old);
        await one.socket.disconnected();
      });

      test("somebody else's token is subject_mismatch, and nobody asks about it later", async (user, enter) => {
        const [old, other] = [register.give(user), register.give(freshUser())];
        const one = await enter(old);
        const { ok, reason, status } = await refresh(one, other);
        assert.deepEqual([ok, reason, status], [false, 'subject_mismatch', way === 'http' ? 403 : undefined]);
        const before = register.times(other);
        register.withdraw(other);
        await register.kept(old);
        await alive(one);
        assert.equal(register.times(other), before);
      });

      test('a JWT of an issuer is of another user, and so the other way round', async (user, enter) => {
        const [old, jwt] = [register.give(user), stage.issuer.sign({ sub: user })];
        const one = await enter(old);
        const two = await enter(jwt);
        for (const [session, token] of [[one, jwt], [two, old]]) {
          const { ok, reason } = await refresh(session, token);
          assert.deepEqual([ok, reason], [false, 'subject_mismatch']);
        }
        register.withdraw(old);
        await one.socket.disconnected();
        await alive(two);
      });

      test('an endpoint that cannot say is keys_unavailable, the session goes on, and the next try counts', async (user, enter) => {
        const [old, fresh] = [register.give(user), register.give(user)];
        const one = await enter(old);
        // Five at once are looked at; the last try needs one of them.
        const ways = ['a server error', 'a page', 'keys that stand twice', 'silence'];
        for (const name of ways) {
          register.odd(fresh, unclear[name]);
          const { ok, reason, status, retry } = await refresh(one, fresh);
          assert.deepEqual([ok, reason], [false, 'keys_unavailable'], name);
          if (way === 'http') assert.deepEqual([status, retry], [503, '2'], name);
          await alive(one);
        }
        register.odd(fresh, undefined);
        assert.equal((await refresh(one, fresh)).ok, true);
        register.withdraw(old);
        await register.kept(fresh);
        await alive(one);
      });

      test('a flood is answered with rate_limited and not asked about', async (user, enter) => {
        const [old, fresh] = [register.give(user), register.give(user)];
        const one = await enter(old);
        const answers = await Promise.all(Array.from({ length: 30 }, () => refresh(one, fresh)));
        const ok = answers.filter((answer) => answer.ok).length;
        assert.ok(ok >= 5 && ok <= 8, `${ok} were let through`);
        assert.ok(answers.every(({ ok: good, reason }) => good || reason === 'rate_limited'), JSON.stringify(answers));
        assert.ok(register.times(fresh) <= ok + 2, `${register.times(fresh)} questions`);
        await alive(one);
      });
    }
  }

});

describe('refresh at a real identity provider', { skip: needsGate }, () => {
  it('a new opaque token, the old one revoked there: the session stays until the new one is revoked', async () => {
    const idp = await IdentityProvider.start();
    const introspection = [{
      url: idp.introspectionUrl, issuer: idp.url, client_id: CLIENT.id, client_secret_env: 'GATE_SECRET', scope: ['chat'], recheck: `${RECHECK}ms`,
    }];
    const stage = await Stage.open({
      config: { introspection, session: { refresh: { enabled: true } } },
      env: { GATE_SECRET: CLIENT.secret },
    });
    const user = freshUser();
    const [old, fresh] = [await idp.token(user, { expiresIn: 3 }), await idp.token(user)];
    const connection = stage.client('v4', 'upgrade', 'auth', old);
    const [socket] = connection.open(['/']);
    try {
      await socket.ready();
      await connection.settled();
      const [unscoped] = await socket.call(EVENT, await idp.token(user, { scope: 'openid' }));
      assert.equal(unscoped.reason, 'claim_rejected');
      const [answer] = await socket.call(EVENT, fresh);
      assert.equal(answer.ok, true, JSON.stringify(answer));
      await idp.revoke(old);
      await wait(4000);
      assert.deepEqual(await socket.call('echo', 'here'), ['here']);
      await idp.revoke(fresh);
      assert.equal((await socket.disconnected()).details.context.reason, 'revoked');
    } finally {
      await connection.close();
      await stage.close();
      await idp.stop();
    }
  });
});

describe('refresh of a session cookie', { skip: needsGate || needsRedis }, () => {
  let redis;
  let gate;
  let stage;

  before(async () => {
    stage = await SessionStage.open({
      store: { recheck: `${RECHECK}ms`, grace: '60s', timeout: '500ms' },
      config: { session: { max_lifetime: '1h', refresh: { enabled: true } } },
    });
    ({ redis, gate } = stage);
  });
  after(() => stage?.close());

  async function entered(transport, user = freshUser()) {
    const visitor = new Visitor(gate.url);
    await visitor.login(user);
    const connection = stage.client('v4', transport, 'none', '', { headers: { cookie: visitor.cookie } });
    const [socket] = connection.open(['/']);
    await socket.ready();
    await connection.settled();
    return { visitor, user, connection, socket };
  }

  const post = async (cookie, { connection }, headers = {}) => {
    const response = await fetch(gate.url + PATH, {
      method: 'POST', headers: { cookie, ...headers }, body: JSON.stringify({ session: connection.engine.id }),
    });
    return { status: response.status, ...(await response.json()) };
  };

  const alive = async ({ socket }) => assert.deepEqual(await socket.call('echo', 'here'), ['here']);

  for (const transport of WAYS) {
    it(`${transport}: a new session of the same user takes over, and only its end counts`, async () => {
      const one = await entered(transport);
      try {
        const { visitor, user } = one;
        const old = visitor.cookie;
        const oldKey = `sess:${visitor.sid}`;
        // As after a change of password: the browser has another cookie now.
        const again = new Visitor(gate.url);
        await again.login(user);
        assert.notEqual(again.cookie, old);
        const answer = await post(again.cookie, one);
        assert.deepEqual([answer.status, answer.ok], [200, true]);
        // A stored session has no end of its own: max_lifetime is what is left.
        assert.ok(answer.expires_in > 3590 && answer.expires_in <= 3600, JSON.stringify(answer));
        await redis.cli('DEL', oldKey);
        await wait(2 * RECHECK);
        await alive(one);
        const gone = await post(old, one);
        assert.deepEqual([gone.status, gone.ok, gone.reason], [401, false, 'logged_out']);
        await alive(one);
        await again.post('/logout');
        const { details, body } = await one.socket.disconnected();
        assert.equal(transport === 'polling' ? JSON.parse(body).reason : details.context.reason, 'logged_out');
      } finally {
        await one.connection.close();
      }
    });

    it(`${transport}: the event has no cookie to offer, and changes nothing`, async () => {
      const one = await entered(transport);
      try {
        for (const given of [[], [{}], [''], [decodeURIComponent(one.visitor.cookie.split('=')[1])], ['a.b.c']]) {
          const [answer] = await one.socket.call(EVENT, ...given);
          assert.deepEqual([answer.ok, answer.reason], [false, 'credential_malformed'], JSON.stringify(given.map((v) => typeof v)));
        }
        await wait(2 * RECHECK);
        await alive(one);
      } finally {
        await one.connection.close();
      }
    });
  }

  it("another user's cookie, a forged one, another page's: refused, and the session goes on", async () => {
    const one = await entered('websocket');
    const other = await entered('websocket');
    try {
      const [id, signature] = [other.visitor.cookie.slice(0, -4), 'AAAA'];
      for (const [cookie, headers, status, reason] of [
        [other.visitor.cookie, {}, 403, 'subject_mismatch'],
        [id + signature, {}, 401, 'signature_invalid'],
        [one.visitor.cookie, { origin: 'https://evil.example' }, 403, 'origin_not_allowed'],
        ['theme=dark', {}, 401, 'credential_missing'],
      ]) {
        const answer = await post(cookie, one, headers);
        assert.deepEqual([answer.status, answer.reason], [status, reason]);
      }
      await alive(one);
    } finally {
      await one.connection.close();
      await other.connection.close();
    }
  });

  it('while the store is away: keys_unavailable, and the session goes on', async () => {
    const one = await entered('websocket');
    try {
      await redis.cli('SAVE');
      await redis.kill();
      const answer = await post(one.visitor.cookie, one);
      assert.deepEqual([answer.status, answer.ok, answer.reason], [503, false, 'keys_unavailable']);
      await alive(one);
    } finally {
      await redis.run();
      await one.connection.close();
    }
  });
});
