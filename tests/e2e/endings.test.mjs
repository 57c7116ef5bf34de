// Each way to lose the right to stay, on WebSocket and polling: one word at client, log, metric and admin list.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { admin, metric } from './lib/admin.mjs';
import { Endpoint } from './lib/endpoint.mjs';
import { WORDS, endsEverywhere, listed } from './lib/endings.mjs';
import { Visitor } from './lib/express_app.mjs';
import { Issuer, nowSeconds } from './lib/issuer.mjs';
import { CLIENT, IdentityProvider } from './lib/oidc.mjs';
import { needsRedis } from './lib/redis.mjs';
import { SessionStage } from './lib/session_stage.mjs';
import { Stage, freshUser, needsGate } from './lib/stage.mjs';

const WAYS = ['websocket', 'polling'];
const RECHECK = 500;
const CAEP = 'https://schemas.openid.net/secevent/caep/event-type';
const LOGOUT = 'http://schemas.openid.net/event/backchannel-logout';

/** A stock client that is in. */
async function entered(stage, transport, { place = 'auth', token = '', headers } = {}) {
  const connection = stage.client('v4', transport, place, token, { headers });
  const [socket] = connection.open(['/']);
  await socket.ready();
  await connection.settled();
  return { connection, socket };
}

/** One client on each transport, one after the other, whose session ends with this word. */
function ends(name, word, stage, enter, act, { within } = {}) {
  for (const transport of WAYS) {
    it(`${name}: ${word} everywhere, ${transport}`, async () => {
      const subject = freshUser();
      const { gate } = stage();
      const { connection, socket, ...given } = await enter(transport, subject);
      try {
        const proof = await endsEverywhere({ gate, socket, transport, subject, word }, (inside) => act({ subject, inside, ...given }));
        if (within) assert.ok(proof.took <= within, `${proof.took} ms`);
        assert.equal(proof.ended.transport, transport);
      } finally {
        await connection.close();
      }
    });
  }
}

describe('by a token, an operator, a provider', { skip: needsGate, concurrency: 1 }, () => {
  let stage;
  let issuer;
  let transmitter;

  before(async () => {
    [transmitter, issuer] = [await Issuer.start(), await Issuer.start()];
    stage = await Stage.open({
      issuerInstance: issuer,
      issuer: { logout: { audience: ['chat-web'] } },
      config: {
        session: { refresh: { enabled: true } },
        transmitter: [{ issuer: transmitter.url, jwks_url: transmitter.jwksUrl, audience: ['https://gate.example.com'], speaks_for: [issuer.url] }],
      },
    });
  });
  after(async () => {
    await stage?.close();
    await issuer?.stop();
    await transmitter?.stop();
  });

  const enter = (claims = () => ({})) => async (transport, sub) =>
    entered(stage, transport, { token: issuer.sign({ sub, ...claims(sub) }) });
  const shortly = () => ({ exp: nowSeconds() + 2 });
  const named = (sub) => ({ jti: `${sub}-jti`, sid: `${sub}-sid` });

  ends('the end of the token', 'token_expired', () => stage, enter(shortly), () => {});

  for (const transport of WAYS) {
    it(`a refresh that is refused: one word at client, log and metric, and the end is the old one, ${transport}`, async () => {
      const subject = freshUser();
      const { connection, socket } = await enter(() => ({ exp: nowSeconds() + 3 }))(transport, subject);
      try {
        const { gate } = stage;
        const { ends_at: end, session } = await listed(gate, subject);
        for (const [token, word] of [
          [issuer.sign({ sub: freshUser() }), 'subject_mismatch'],
          [issuer.expired({ sub: subject }), 'token_expired'],
          [issuer.tampered({ sub: subject }), 'signature_invalid'],
          [issuer.sign({ sub: subject, aud: 'other' }), 'audience_mismatch'],
        ]) {
          const counter = `siogate_refused_total{reason="${word}"}`;
          const refused = await metric(gate, counter);
          const [answer] = await socket.call('siogate:refresh', token);
          assert.deepEqual([answer.ok, answer.reason, answer.message], [false, word, WORDS[word].message]);
          await gate.log.next('refresh refused', (record) => record.session === session && record.reason === word);
          assert.equal(await metric(gate, counter), refused + 1);
          const inside = await listed(gate, subject);
          assert.deepEqual([inside.state, inside.reason, inside.ends_at], ['admitted', null, end]);
        }
        await endsEverywhere({ gate, socket, transport, subject, word: 'token_expired' }, () => {});
      } finally {
        await connection.close();
      }
    });
  }

  const revoke = async (body) => {
    const answer = await admin(stage.gate, 'revocations', { method: 'POST', body: { issuer: issuer.url, ...body } });
    assert.deepEqual([answer.status, answer.ended, answer.reason], [200, 1, 'revoked'], JSON.stringify(answer));
    const { revocations } = await admin(stage.gate, 'revocations?limit=1000');
    assert.ok(revocations.some((one) => one.kind === answer.kind && one.value === answer.value && one.reason === 'revoked'));
  };
  const fast = { within: 1000 };
  ends('revocation by jti', 'revoked', () => stage, enter(named), ({ subject }) => revoke({ jti: `${subject}-jti` }), fast);
  ends('revocation by subject', 'revoked', () => stage, enter(named), ({ subject }) => revoke({ subject }), fast);
  ends('revocation by sid', 'revoked', () => stage, enter(named), ({ subject }) => revoke({ sid: `${subject}-sid` }), fast);

  ends('DELETE by an operator', 'kicked', () => stage, enter(), async ({ inside }) => {
    assert.equal((await admin(stage.gate, `sessions/${inside.session}`, { method: 'DELETE' })).status, 204);
  }, fast);

  const logout = async (claims) => {
    const token = issuer.sign({ aud: 'chat-web', events: { [LOGOUT]: {} }, ...claims }, { header: { typ: 'logout+jwt' } });
    const answer = await fetch(`${stage.url}/.siogate/backchannel-logout`, { method: 'POST', body: new URLSearchParams({ logout_token: token }) });
    assert.equal(answer.status, 200, await answer.text());
  };
  ends('back-channel logout of a login', 'logged_out', () => stage, enter(named), ({ subject }) => logout({ sub: undefined, sid: `${subject}-sid` }), fast);
  ends('back-channel logout of a user', 'logged_out', () => stage, enter(named), ({ subject }) => logout({ sub: subject }), fast);

  const push = async (type, subject) => {
    const said = { aud: 'https://gate.example.com', jti: randomUUID(), exp: undefined, sub: undefined, events: { [`${CAEP}/${type}`]: {} } };
    const token = transmitter.sign({ ...said, sub_id: { format: 'iss_sub', iss: issuer.url, sub: subject } }, { header: { typ: 'secevent+jwt' } });
    const headers = { 'content-type': 'application/secevent+jwt' };
    const answer = await fetch(`${stage.url}/.siogate/events`, { method: 'POST', headers, body: token });
    assert.equal(answer.status, 202, await answer.text());
  };
  ends('shared signal session-revoked', 'revoked', () => stage, enter(), ({ subject }) => push('session-revoked', subject), fast);
  ends('shared signal credential-change', 'revoked', () => stage, enter(), ({ subject }) => push('credential-change', subject), fast);

  // Everybody's tokens of until now: the last of this stage, each once in a second of its own.
  ends('revocation by issuer', 'revoked', () => stage, async (transport, sub) => {
    const iat = nowSeconds() + 1;
    while (nowSeconds() < iat) await new Promise((next) => setTimeout(next, 20));
    return enter()(transport, sub);
  }, () => revoke({}), fast);
});

describe('by those who vouch', { skip: needsGate, concurrency: 1 }, () => {
  describe('introspection', { concurrency: 1 }, () => {
    let idp;
    let stage;
    const env = { GATE_SECRET: CLIENT.secret };
    before(async () => {
      idp = await IdentityProvider.start();
      const introspection = [{ url: idp.introspectionUrl, issuer: idp.url, client_id: CLIENT.id, client_secret_env: 'GATE_SECRET', recheck: `${RECHECK}ms` }];
      stage = await Stage.open({ config: { introspection }, env });
    });
    after(async () => {
      await stage?.close();
      await idp?.stop();
    });
    const enter = (options) => async (transport, subject) => {
      const token = await idp.token(subject, options);
      return { token, ...(await entered(stage, transport, { token })) };
    };
    ends('an opaque token that is inactive', 'revoked', () => stage, enter(), ({ token }) => idp.revoke(token), { within: RECHECK + 500 });
    ends('the end of an opaque token', 'token_expired', () => stage, enter({ expiresIn: 2 }), () => {});
  });

  describe('a call-out', { concurrency: 1 }, () => {
    let endpoint;
    let stage;
    const known = new Map();
    before(async () => {
      const nobody = () => ({ status: 401 });
      endpoint = await Endpoint.start((request) => (known.get(request.headers.authorization?.slice('Bearer '.length)) ?? nobody)());
      stage = await Stage.open({ config: { callout: [{ url: endpoint.url, recheck: `${RECHECK}ms`, timeout: '300ms', grace: '500ms' }] } });
    });
    after(async () => {
      await stage?.close();
      await endpoint?.stop();
    });
    const enter = async (transport, sub) => {
      const token = `key-of-${sub}-${'a'.repeat(20)}`;
      known.set(token, () => ({ body: { sub } }));
      return { token, ...(await entered(stage, transport, { token })) };
    };
    const says = (answer) => ({ token, subject }) => known.set(token, () => answer(subject));
    for (const status of [401, 403]) {
      ends(`${status} of a call-out`, 'revoked', () => stage, enter, says(() => ({ status })), { within: RECHECK + 500 });
    }
    ends('a call-out that names somebody else', 'subject_mismatch', () => stage, enter, says(() => ({ body: { sub: 'mallory' } })));
    ends('a call-out that says nothing for longer than the grace', 'keys_unavailable', () => stage, enter, says(() => null));
  });

  describe('a session store', { skip: needsRedis, concurrency: 1 }, () => {
    let stage;
    before(async () => { stage = await SessionStage.open({ store: { recheck: `${RECHECK}ms` } }); });
    after(() => stage?.close());
    const enter = async (transport, subject) => {
      const visitor = new Visitor(stage.url);
      await visitor.login(subject);
      return { visitor, ...(await entered(stage, transport, { place: 'none', headers: { cookie: visitor.cookie } })) };
    };
    for (const way of ['logout', 'destroy', 'regenerate']) {
      ends(`${way} in the application`, 'logged_out', () => stage, enter, ({ visitor }) => visitor.post(`/${way}`), { within: RECHECK + 500 });
    }
    ends('a stored session that is deleted', 'logged_out', () => stage, enter, ({ visitor }) => stage.redis.cli('DEL', `sess:${visitor.sid}`));
    ends('the end of a stored session', 'token_expired', () => stage, async (transport, subject) => {
      const visitor = new Visitor(stage.url);
      await visitor.login(subject);
      await stage.redis.cli('PEXPIRE', `sess:${visitor.sid}`, '1500');
      return entered(stage, transport, { place: 'none', headers: { cookie: visitor.cookie } });
    }, () => {});
  });
});

describe('by time, and by the gate itself', { skip: needsGate, concurrency: 1 }, () => {
  let base;
  const stages = {};
  before(async () => {
    base = await Stage.open({ backend: { options: { pingInterval: 300, pingTimeout: 5000 } } });
    for (const [name, session] of [['lifetime', { max_lifetime: '2s' }], ['idle', { idle_timeout: '1s' }]]) {
      stages[name] = await Stage.open({ config: { session }, backendInstance: base.backend, issuerInstance: base.issuer });
    }
  });
  after(async () => {
    for (const stage of [...Object.values(stages), base]) await stage?.close();
  });

  const enter = (name) => (transport, sub) => entered(stages[name], transport, { token: base.issuer.sign({ sub }) });
  ends('max_lifetime', 'max_session', () => stages.lifetime, enter('lifetime'), () => {});
  ends('idle_timeout, heartbeats or not', 'idle', () => stages.idle, enter('idle'), () => {});

  for (const transport of WAYS) {
    it(`a drain: draining everywhere, ${transport}`, async () => {
      // A request that is under way keeps the process for long enough to be asked.
      let held;
      const arrived = new Promise((next) => {
        held = next;
      });
      const stage = await Stage.open({
        backend: { http: (_, res) => held(res) },
        config: { server: { listen: ['127.0.0.1:0'], drain_timeout: '8s' }, http: { route: [{ path: '/', auth: 'pass' }] } },
      });
      const subject = freshUser();
      const { connection, socket } = await entered(stage, transport, { token: stage.issuer.sign({ sub: subject }) });
      const slow = fetch(`${stage.url}/slow`);
      const answer = await arrived;
      try {
        const { gate } = stage;
        await endsEverywhere({ gate, socket, transport, subject, word: 'draining' }, () => gate.child.kill('SIGTERM'));
        assert.equal(await (await fetch(`${gate.adminUrl}/readyz`)).text(), 'draining\n');
        const finished = once(answer, 'finish');
        answer.end('done');
        await finished;
        assert.equal(await (await slow).text(), 'done');
        assert.equal((await gate.exited).code, 0);
      } finally {
        answer.end();
        await connection.close();
        await stage.close();
      }
    });
  }
});
