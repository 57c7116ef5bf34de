// A real identity provider: oidc-provider, with introspection and revocation of opaque tokens.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';
import { issuedTokens } from './issuer.mjs';

export const CLIENT = { id: 'siogate', secret: 'the secret of the gate: with a colon & a percent %' };

export class IdentityProvider {
  static async start() {
    const idp = new IdentityProvider();
    idp.asked = 0;
    idp.server = createServer((request, response) => {
      if (request.url.endsWith('/introspection')) idp.asked += 1;
      idp.handler(request, response);
    });
    idp.server.listen(0, '127.0.0.1');
    await once(idp.server, 'listening');
    idp.url = `http://127.0.0.1:${idp.server.address().port}`;
    idp.provider = new Provider(idp.url, {
      clients: [
        { client_id: CLIENT.id, client_secret: CLIENT.secret, grant_types: [], redirect_uris: [], response_types: [] },
        { client_id: 'post', client_secret: 'posted', token_endpoint_auth_method: 'client_secret_post', grant_types: [], redirect_uris: [], response_types: [] },
        { client_id: 'app', client_secret: 'of the app', redirect_uris: ['https://app.example/callback'] },
      ],
      features: {
        introspection: { enabled: true, allowedPolicy: () => true },
        revocation: { enabled: true },
        devInteractions: { enabled: false },
      },
      findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
      ttl: { AccessToken: 300 },
    });
    idp.handler = idp.provider.callback();
    return idp;
  }

  get introspectionUrl() {
    return `${this.url}/token/introspection`;
  }

  /** An opaque access token of this user, as the token endpoint would give it out. */
  async token(accountId, { scope = 'openid chat', expiresIn = 300 } = {}) {
    const client = await this.provider.Client.find('app');
    const grant = new this.provider.Grant({ accountId, clientId: 'app' });
    grant.addOIDCScope(scope);
    const grantId = await grant.save();
    const token = new this.provider.AccessToken({ accountId, client, grantId, scope, gty: 'authorization_code', expiresIn });
    const value = await token.save();
    issuedTokens.add(`x.${value}.${value}`);
    return value;
  }

  /** RFC 7009, by the application. */
  async revoke(token) {
    const authorization = `Basic ${Buffer.from(`app:${encodeURIComponent('of the app')}`).toString('base64')}`;
    const answer = await fetch(`${this.url}/token/revocation`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ token }),
    });
    if (answer.status !== 200) throw new Error(`not revoked: ${answer.status} ${await answer.text()}`);
  }

  async stop() {
    this.server.close();
    this.server.closeAllConnections();
  }
}
