// What every oidc-provider of the tests has: a server of its own, a key, and nothing to say about being for tests.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

/** It warns of everything that is for tests only. */
function quiet(call) {
  const { info, warn } = console;
  Object.assign(console, { info() {}, warn() {} });
  try {
    return call();
  } finally {
    Object.assign(console, { info, warn });
  }
}

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: 'RS256', use: 'sig' };
}

export class Hosted {
  /** Logout tokens that did not arrive. */
  failures = [];
  /** Where its calls go instead of the host they name, if anywhere. */
  gate;

  async listen() {
    this.server = createServer((req, res) => this.answer(req, res));
    this.server.listen(0, '127.0.0.1');
    await once(this.server, 'listening');
    this.origin = `http://127.0.0.1:${this.server.address().port}`;
  }

  /** `features` and `more`: the configuration of oidc-provider beyond what all have in common. */
  provide(issuer, { features, ...more }) {
    this.provider = quiet(() => new Provider(issuer, {
      jwks: { keys: [signingKey()] },
      cookies: { keys: ['a key of the tests'] },
      // It sends nothing to this machine's own addresses unless it is told otherwise.
      fetch: (url, { dispatcher, ...options }) => globalThis.fetch(this.gate ? new URL(new URL(url).pathname, this.gate) : url, options),
      features: { backchannelLogout: { enabled: true }, ...features },
      ...more,
    }));
    this.provider.on('backchannel.error', (_, error) => this.failures.push(error));
  }

  answer(req, res) {
    this.callback ??= this.provider.callback();
    return this.callback(req, res);
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}
