// An identity provider of the tests' own: discovery, JWKS, signing, and misbehaviour on command.
import { createHmac, generateKeyPairSync, randomUUID, sign as rawSign } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

/** Every token made in this process; gates are searched for them when they stop. */
export const issuedTokens = new Set();

const b64 = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
export const nowSeconds = () => Math.floor(Date.now() / 1000);

const KEY_MAKERS = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

function signature(alg, key, input) {
  const data = Buffer.from(input);
  switch (alg) {
    case 'RS256':
      return rawSign('sha256', data, key);
    case 'ES256':
      return rawSign('sha256', data, { key, dsaEncoding: 'ieee-p1363' });
    case 'EdDSA':
      return rawSign(null, data, key);
    case 'HS256':
    case 'HS384':
    case 'HS512':
      return createHmac(`sha${alg.slice(2)}`, key).update(data).digest();
    default:
      throw new Error(`cannot sign ${alg}`);
  }
}

/** A compact JWS over these claims. */
export function makeToken(alg, key, header, claims) {
  const input = `${b64({ alg, typ: 'JWT', ...header })}.${b64(claims)}`;
  const token = `${input}.${signature(alg, key, input).toString('base64url')}`;
  issuedTokens.add(token);
  return token;
}

/** A token of a shared secret. */
export function secretToken(secret, claims, alg = 'HS256') {
  return makeToken(alg, secret, {}, { iat: nowSeconds(), exp: nowSeconds() + 300, ...claims });
}

export class SigningKey {
  constructor(alg = 'ES256') {
    this.alg = alg;
    this.kid = `${alg}-${randomUUID().slice(0, 8)}`;
    Object.assign(this, KEY_MAKERS[alg]());
  }

  jwk() {
    return { ...this.publicKey.export({ format: 'jwk' }), kid: this.kid, alg: this.alg, use: 'sig' };
  }
}

export class Issuer {
  /** 'ok' | 'error' | 'empty' | 'html' | 'huge' | 'redirect' | 'hang' | 'slow' */
  mode = 'ok';
  keyRequests = 0;
  discoveryRequests = 0;
  #held = [];

  static async start({ algs = ['ES256'], port = 0 } = {}) {
    const issuer = new Issuer();
    issuer.keys = algs.map((alg) => new SigningKey(alg));
    issuer.server = createServer((req, res) => issuer.#answer(req, res));
    issuer.server.listen(port, '127.0.0.1');
    await once(issuer.server, 'listening');
    issuer.port = issuer.server.address().port;
    issuer.url = `http://127.0.0.1:${issuer.port}`;
    issuer.jwksUrl = `${issuer.url}/jwks.json`;
    return issuer;
  }

  #answer(req, res) {
    if (req.url === '/.well-known/openid-configuration') {
      this.discoveryRequests += 1;
      return this.#json(res, { issuer: this.url, jwks_uri: this.jwksUrl });
    }
    if (req.url !== '/jwks.json' && req.url !== '/elsewhere.json') {
      res.writeHead(404).end();
      return;
    }
    this.keyRequests += 1;
    const keys = { keys: this.keys.map((key) => key.jwk()) };
    switch (req.url === '/elsewhere.json' ? 'ok' : this.mode) {
      case 'error':
        return res.writeHead(500).end('{"error":"broken"}');
      case 'empty':
        return this.#json(res, { keys: [] });
      case 'html':
        return res.writeHead(200, { 'content-type': 'text/html' }).end('<html>maintenance</html>');
      case 'huge':
        return this.#json(res, { ...keys, padding: 'x'.repeat(10_000_000) });
      case 'redirect':
        return res.writeHead(302, { location: `${this.url}/elsewhere.json` }).end();
      case 'hang':
        this.#held.push(res);
        return undefined;
      case 'slow':
        // The test releases it; a request that is merely late must not fail.
        this.#held.push(res);
        res.release = () => this.#json(res, keys);
        return undefined;
      default:
        return this.#json(res, keys);
    }
  }

  #json(res, value) {
    res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  }

  /** Answers what 'slow' mode holds back. */
  release() {
    for (const res of this.#held.splice(0)) res.release?.();
  }

  get heldRequests() {
    return this.#held.length;
  }

  /** The old keys are gone; the new one signs from now on. */
  rotate(alg = this.keys[0].alg) {
    this.keys = [new SigningKey(alg)];
  }

  claims(claims) {
    const base = { iss: this.url, aud: 'chat', sub: 'alice', iat: nowSeconds(), exp: nowSeconds() + 300, jti: randomUUID() };
    return { ...base, ...claims };
  }

  /** A good token unless the claims or options say otherwise. */
  sign(claims = {}, { key = this.keys[0], header = {} } = {}) {
    return makeToken(key.alg, key.privateKey, { kid: key.kid, ...header }, this.claims(claims));
  }

  expired(claims = {}) {
    return this.sign({ iat: nowSeconds() - 600, exp: nowSeconds() - 300, ...claims });
  }

  tampered(claims = {}) {
    const [head, , tail] = this.sign(claims).split('.');
    const token = `${head}.${b64(this.claims({ ...claims, sub: 'mallory' }))}.${tail}`;
    issuedTokens.add(token);
    return token;
  }

  async stop() {
    for (const res of this.#held.splice(0)) res.destroy();
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}
