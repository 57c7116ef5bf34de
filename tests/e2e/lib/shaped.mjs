// oidc-provider in the shape of Keycloak and of Auth0: their routes, parameters, tokens and clients.
import { randomUUID } from 'node:crypto';
import { Hosted } from './hosted.mjs';
import { issuedTokens } from './issuer.mjs';

const b64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

class Shaped extends Hosted {
  /** Claims of the access tokens that it gave out, oldest first. */
  given = [];

  /** `more`: what the shape adds to the configuration of oidc-provider. */
  build(issuer, { clients, shape, ...more }) {
    this.issuer = issuer;
    this.provide(issuer, {
      clients: clients.map((client) => ({
        token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        ...client,
      })),
      findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, email: `${sub}@example.com` }) }),
      clientBasedCORS: () => true,
      ttl: {
        AccessToken: (_, token) => token.resourceServer?.accessTokenTTL ?? 60,
        ...Object.fromEntries(['Grant', 'IdToken', 'Interaction', 'RefreshToken', 'Session'].map((name) => [name, 600])),
      },
      // Whoever logs in agrees.
      loadExistingGrant: (ctx) => this.#agreed(ctx),
      formats: { customizers: { jwt: (ctx, token, jwt) => shape(ctx, token, jwt) } },
      ...more,
    });
    this.provider.use(async (ctx, next) => {
      await next();
      // Pages send their cookies along, as these two allow.
      if (ctx.response.get('access-control-allow-origin')) ctx.set('access-control-allow-credentials', 'true');
      for (const name of ['access_token', 'id_token']) if (ctx.body?.[name]?.includes?.('.')) issuedTokens.add(ctx.body[name]);
    });
  }

  async #agreed(ctx) {
    const { client, session, params } = ctx.oidc;
    const known = session.grantIdFor(client.clientId);
    const grant = (known && await this.provider.Grant.find(known)) || new this.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile email offline_access');
    if (params.resource) grant.addResourceScope([params.resource].flat()[0], 'openid profile email offline_access');
    await grant.save();
    return grant;
  }
}

/** A realm of Keycloak: https://www.keycloak.org/securing-apps/oidc-layers */
export class Keycloak extends Shaped {
  /** `page`: the application's origin; `ttl`: of its access tokens, in seconds. */
  static async start({ page, realm = 'chat', clientId = 'chat-web', ttl }) {
    const idp = new Keycloak();
    await idp.listen();
    idp.prefix = `/realms/${realm}`;
    const oidc = '/protocol/openid-connect';
    idp.build(`${idp.origin}${idp.prefix}`, {
      routes: {
        authorization: `${oidc}/auth`,
        token: `${oidc}/token`,
        jwks: `${oidc}/certs`,
        end_session: `${oidc}/logout`,
        userinfo: `${oidc}/userinfo`,
      },
      clients: [
        {
          client_id: clientId,
          redirect_uris: [`${page}/`],
          post_logout_redirect_uris: [`${page}/`],
          backchannel_logout_uri: 'https://chat.example.com/.siogate/backchannel-logout',
        },
        { client_id: 'unmapped', redirect_uris: [`${page}/`] },
      ],
      // It has no resource indicators: the client's scope decides.
      features: {
        resourceIndicators: {
          enabled: true,
          defaultResource: () => 'urn:keycloak',
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({
            scope: 'openid profile email', audience: 'account', accessTokenTTL: ttl, accessTokenFormat: 'jwt',
          }),
        },
      },
      issueRefreshToken: () => true,
      shape: (_, token, jwt) => idp.#shape(token, jwt, clientId),
    });
    // Its refresh tokens are JWTs, which keycloak-js reads.
    idp.provider.RefreshToken.prototype.generateTokenId = function generateTokenId() {
      return `${b64({ alg: 'HS512', typ: 'JWT' })}.${b64({ typ: 'Refresh', azp: clientId, sid: this.grantId })}.${randomUUID()}`;
    };
    return idp;
  }

  #shape(token, jwt, mapped) {
    const { client_id: azp, ...claims } = jwt.payload;
    jwt.header = { typ: 'JWT' };
    jwt.payload = {
      ...claims,
      jti: `onrtac:${randomUUID()}`,
      // The mapper of the type Audience adds to what is there.
      aud: azp === mapped ? ['chat', 'account'] : 'account',
      typ: 'Bearer',
      azp,
      sid: token.grantId,
      acr: '1',
      realm_access: { roles: ['default-roles-chat', 'offline_access'] },
      resource_access: { account: { roles: ['manage-account', 'view-profile'] } },
      preferred_username: claims.sub,
      email_verified: true,
    };
    this.given.push(jwt.payload);
  }

  answer(req, res) {
    const path = req.url.split('?')[0];
    // Whether cookies of another site's frame are there: none are in browsers of today.
    if (path === `${this.prefix}/protocol/openid-connect/3p-cookies/step1.html`) {
      const script = '<!doctype html><script>window.parent.postMessage("unsupported", "*")</script>';
      return res.writeHead(200, { 'content-type': 'text/html' }).end(script);
    }
    if (!req.url.startsWith(`${this.prefix}/`)) return res.writeHead(404).end();
    req.originalUrl = req.url;
    req.url = req.url.slice(this.prefix.length);
    return super.answer(req, res);
  }
}

/** A tenant of Auth0: https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles */
export class Auth0 extends Shaped {
  /** `api`: the identifier of the API; the rest as above. */
  static async start({ page, api, clientId, ttl }) {
    const idp = new Auth0();
    await idp.listen();
    const scope = 'openid profile email offline_access';
    idp.build(`${idp.origin}/`, {
      routes: { authorization: '/authorize', token: '/oauth/token', jwks: '/.well-known/jwks.json', end_session: '/oidc/logout', userinfo: '/userinfo' },
      clients: [{ client_id: clientId, redirect_uris: [page] }],
      features: {
        webMessageResponseMode: { enabled: true, ack: 'individual-draft-01' },
        resourceIndicators: {
          enabled: true,
          // Without an audience the token is for the tenant's own /userinfo, and opaque.
          useGrantedResource: () => true,
          getResourceServerInfo: () => ({ scope, audience: api, accessTokenTTL: ttl, accessTokenFormat: 'jwt' }),
        },
      },
      shape: (_, token, jwt) => idp.#shape(jwt, api),
    });
    return idp;
  }

  #shape(jwt, api) {
    const { client_id: azp, ...claims } = jwt.payload;
    jwt.header = { typ: 'JWT' };
    jwt.payload = { ...claims, aud: [api, `${this.issuer}userinfo`], azp, jti: undefined };
    this.given.push(jwt.payload);
  }

  answer(req, res) {
    const url = new URL(req.url, this.origin);
    // It calls a resource an audience.
    if (url.pathname === '/authorize' && url.searchParams.has('audience')) {
      url.searchParams.set('resource', url.searchParams.get('audience'));
      url.searchParams.delete('audience');
      req.url = url.pathname + url.search;
    }
    return super.answer(req, res);
  }
}
