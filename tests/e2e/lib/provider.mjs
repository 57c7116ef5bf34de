// oidc-provider, unchanged, as the identity provider: users log in and out by HTTP as browsers do.
import { createHash, randomBytes } from 'node:crypto';
import { Hosted } from './hosted.mjs';
import { issuedTokens } from './issuer.mjs';

const REDIRECT = 'http://localhost/callback';

export class IdentityProvider extends Hosted {
  /** Logout tokens that have arrived. */
  sent = 0;

  static async start() {
    const idp = new IdentityProvider();
    await idp.listen();
    idp.url = idp.origin;
    const resource = { scope: 'chat', audience: 'chat', accessTokenTTL: 600, accessTokenFormat: 'jwt' };
    idp.provide(idp.url, {
      findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
      features: {
        registration: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => 'https://chat.example.com',
          getResourceServerInfo: () => resource,
          useGrantedResource: () => true,
        },
      },
    });
    idp.provider.on('backchannel.success', () => (idp.sent += 1));
    return idp;
  }

  /** An application that is told of logouts at this URL; `named`: with the `sid`. */
  async register(logoutUri, { named = false } = {}) {
    const answer = await fetch(`${this.url}/reg`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        redirect_uris: [REDIRECT],
        backchannel_logout_uri: logoutUri,
        backchannel_logout_session_required: named,
        application_type: 'web',
      }),
    });
    const client = await answer.json();
    if (answer.status !== 201) throw new Error(`registration: ${answer.status} ${JSON.stringify(client)}`);
    return client;
  }
}

/** A browser: cookies, and redirects followed one by one. */
export class Browser {
  cookies = new Map();

  constructor(idp) {
    this.idp = idp;
  }

  async ask(url, form) {
    const target = new URL(url, this.idp.url);
    const answer = await fetch(target, {
      method: form ? 'POST' : 'GET',
      body: form && new URLSearchParams(form),
      headers: { cookie: [...this.cookies].map((pair) => pair.join('=')).join('; ') },
      redirect: 'manual',
    });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      if (value) this.cookies.set(name, value);
      else this.cookies.delete(name);
    }
    const text = await answer.text();
    if (answer.status >= 400) throw new Error(`${target}: ${answer.status} ${text.slice(0, 300)}`);
    return { text, location: answer.headers.get('location') };
  }

  /** Logs a user in, by the pages of the provider; resolves with its tokens. */
  async login(client, user) {
    const verifier = randomBytes(32).toString('base64url');
    const query = new URLSearchParams({
      client_id: client.client_id,
      redirect_uri: REDIRECT,
      response_type: 'code',
      scope: 'openid chat',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    });
    let { location } = await this.ask(`/auth?${query}`);
    for (let step = 0; !location.startsWith(REDIRECT); step += 1) {
      if (step > 10) throw new Error(`the login does not end: ${location}`);
      const page = await this.ask(location);
      const prompt = /name="prompt" value="(\w+)"/.exec(page.text)?.[1];
      const form = prompt && { prompt, login: user, password: 'any' };
      location = page.location ?? (await this.ask(location, form)).location;
    }
    const code = new URL(location).searchParams.get('code');
    const answer = await fetch(`${this.idp.url}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${client.client_id}:${client.client_secret}`).toString('base64')}` },
      body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: REDIRECT, code_verifier: verifier }),
    });
    const tokens = await answer.json();
    if (answer.status !== 200) throw new Error(`token: ${answer.status} ${JSON.stringify(tokens)}`);
    issuedTokens.add(tokens.access_token).add(tokens.id_token);
    return tokens;
  }

  /** Logs out at the provider, by its page. */
  async logout() {
    const { text } = await this.ask('/session/end');
    const [, xsrf] = /name="xsrf" value="(\w+)"/.exec(text);
    await this.ask('/session/end/confirm', { xsrf, logout: 'yes' });
  }
}
