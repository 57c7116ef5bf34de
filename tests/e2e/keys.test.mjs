// Key servers that misbehave: down, slow, empty, huge, redirecting, rotating. Never a wrong admission, never a lasting refusal.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Backend } from './lib/backend.mjs';
import { client } from './lib/clients.mjs';
import { DIRECT, Gate, trust } from './lib/gate.mjs';
import { Issuer, SigningKey } from './lib/issuer.mjs';
import { freshUser } from './lib/stage.mjs';

let backend;

/** One attempt: `undefined` when let in with this identity, else the word of the refusal or the client's word for a closed line. */
async function attempt(gate, token, user) {
  const connection = client('v4', gate.url, { transport: 'websocket', auth: { token } });
  try {
    const [socket] = connection.open(['/']);
    const { name, value } = await socket.events.first(['connect', 'refused', 'disconnect']);
    if (name === 'disconnect') return value.reason;
    if (name === 'refused') return value.data?.code ?? value.message;
    const [seen] = await socket.call('whoami');
    assert.equal(seen.headers['x-auth-subject'], user);
    return undefined;
  } finally {
    await connection.close();
  }
}

/** A gate in front of these issuers, for the length of the body. */
async function withGate(issuers, body, { ready = true, rules = {} } = {}) {
  const gate = await Gate.start({ upstream: { urls: [backend.url] }, issuer: issuers.map((one) => trust(one, rules)) }, { ready });
  try {
    await body(gate);
  } finally {
    await gate.stop();
  }
}

async function withIssuer(options, body) {
  const issuer = await Issuer.start(options);
  try {
    await body(issuer);
  } finally {
    await issuer.stop();
  }
}

describe('key servers', { concurrency: 4, skip: DIRECT && 'needs the gate' }, () => {
  before(async () => {
    backend = await Backend.start();
  });
  after(() => backend?.stop());

  for (const alg of ['RS256', 'ES256', 'EdDSA']) {
    it(`${alg} by JWKS`, () => withIssuer({ algs: [alg] }, (issuer) => withGate([issuer], async (gate) => {
      const sub = freshUser();
      assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
      assert.equal(await attempt(gate, issuer.tampered({ sub }), sub), 'signature_invalid');
    })));
  }

  it('by discovery', () => withIssuer({}, (issuer) => withGate([issuer], async (gate) => {
    const sub = freshUser();
    assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
    assert.ok(issuer.discoveryRequests >= 1);
  }, { rules: { jwks_url: undefined } })));

  it('two issuers, each for its own tokens only', () => withIssuer({}, (one) => withIssuer({}, (two) => {
    two.keys[0].kid = one.keys[0].kid;
    return withGate([one, two], async (gate) => {
      const sub = freshUser();
      assert.equal(await attempt(gate, one.sign({ sub }), sub), undefined);
      assert.equal(await attempt(gate, two.sign({ sub }), sub), undefined);
      assert.equal(await attempt(gate, two.sign({ sub, iss: one.url }), sub), 'signature_invalid');
    });
  })));

  for (const mode of ['error', 'empty', 'html', 'huge', 'redirect', 'hang']) {
    it(`${mode} at the start: refused as keys_unavailable, and in once it is well`, () => withIssuer({}, (issuer) => {
      issuer.mode = mode;
      return withGate([issuer], async (gate) => {
        const sub = freshUser();
        // No CONNECT_ERROR, after which a stock client would never come back: the line is closed.
        assert.equal(await attempt(gate, issuer.sign({ sub }), sub), 'transport close');
        await gate.sessionEnded('keys_unavailable');
        assert.equal((await fetch(`${gate.adminUrl}/readyz`)).status, 503);
        assert.equal((await fetch(`${gate.adminUrl}/healthz`)).status, 200);
        issuer.mode = 'ok';
        await gate.ready(45_000);
        assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
      }, { ready: false });
    }));
  }

  it('slow: a session waits for the keys', () => withIssuer({}, (issuer) => {
    issuer.mode = 'slow';
    return withGate([issuer], async (gate) => {
      const sub = freshUser();
      const waiting = attempt(gate, issuer.sign({ sub }), sub);
      while (issuer.heldRequests === 0) await new Promise((next) => setTimeout(next, 10));
      issuer.mode = 'ok';
      issuer.release();
      assert.equal(await waiting, undefined);
    }, { ready: false });
  }));

  it('a rotated key is fetched when it is first seen, by one request for all', () => withIssuer({}, (issuer) => withGate([issuer], async (gate) => {
    const sub = freshUser();
    const old = issuer.sign({ sub });
    assert.equal(await attempt(gate, old, sub), undefined);
    const before = issuer.keyRequests;
    issuer.rotate();
    const answers = await Promise.all(Array.from({ length: 10 }, () => attempt(gate, issuer.sign({ sub }), sub)));
    assert.deepEqual(answers, Array(10).fill(undefined));
    assert.equal(issuer.keyRequests, before + 1);
    assert.equal(await attempt(gate, old, sub), 'key_unknown');
  })));

  it('an outage later leaves the known keys in use', () => withIssuer({}, (issuer) => withGate([issuer], async (gate) => {
    const sub = freshUser();
    for (const mode of ['error', 'empty', 'hang']) {
      issuer.mode = mode;
      assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
      // An unknown kid makes the gate ask again; the answer must not poison what it has.
      const refusal = await attempt(gate, issuer.sign({ sub }, { key: new SigningKey() }), sub);
      assert.ok(['key_unknown', 'keys_unavailable'].includes(refusal), refusal);
      assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
    }
  })));

  it('a flood of unknown keys does not become a flood of requests', () => withIssuer({}, (issuer) => withGate([issuer], async (gate) => {
    const sub = freshUser();
    const before = issuer.keyRequests;
    const key = new SigningKey();
    const tokens = Array.from({ length: 60 }, (_, i) => {
      key.kid = `unknown-${i}`;
      return issuer.sign({ sub }, { key });
    });
    const words = await Promise.all(tokens.map((token) => attempt(gate, token, sub)));
    assert.deepEqual(new Set(words), new Set(['key_unknown']));
    assert.ok(issuer.keyRequests - before <= 2, `${issuer.keyRequests - before} requests`);
    assert.equal(await attempt(gate, issuer.sign({ sub }), sub), undefined);
  })));

  it('a token with its own key in the header brings nothing', () => withIssuer({}, (issuer) => withGate([issuer], async (gate) => {
    const key = new SigningKey();
    const other = await Issuer.start();
    const header = { jwk: key.jwk(), jku: other.jwksUrl, x5u: other.jwksUrl };
    try {
      const word = await attempt(gate, issuer.sign({}, { key, header }), 'alice');
      assert.ok(['key_unknown', 'credential_malformed', 'claim_rejected'].includes(word), word);
      assert.equal(other.keyRequests, 0);
      for (const crit of [['exp'], [], 'x']) {
        const refusal = await attempt(gate, issuer.sign({}, { header: { crit } }), 'alice');
        assert.equal(typeof refusal, 'string');
      }
    } finally {
      await other.stop();
    }
  })));
});
