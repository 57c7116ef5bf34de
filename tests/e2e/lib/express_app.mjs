// An application as they are written: Express, express-session in Redis, passport, and Socket.IO on the same session.
import { RedisStore } from 'connect-redis';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import { Strategy as LocalStrategy } from 'passport-local';
import { createClient } from 'redis';
import { Backend } from './backend.mjs';

export const SECRET = 'the session secret of the application';

export class ExpressApp {
  /** `secret`: one, or several as express-session takes them; `cookie`: its options. */
  static async start(redis, { secret = SECRET, cookie = {}, ...options } = {}) {
    const app = new ExpressApp();
    app.client = createClient({ socket: { path: redis.socket, reconnectStrategy: 50 } });
    app.client.on('error', () => {});
    await app.client.connect();
    const sessions = session({
      secret,
      resave: false,
      saveUninitialized: false,
      store: new RedisStore({ client: app.client }),
      cookie,
      ...options,
    });
    // An authenticator of its own: passport's default one is shared by the process.
    const auth = new passport.Passport();
    auth.use(new LocalStrategy((user, password, done) => done(null, password === 'right' && { id: user })));
    auth.serializeUser((user, done) => done(null, user.id));
    auth.deserializeUser((id, done) => done(null, { id }));

    const web = express();
    web.use(sessions, auth.session(), express.json());
    web.post('/login', auth.authenticate('local'), (req, res) => res.json({ user: req.user.id }));
    web.post('/logout', (req, res, next) => req.logout((error) => (error ? next(error) : res.json({}))));
    web.post('/destroy', (req, res) => req.session.destroy(() => res.json({})));
    web.post('/regenerate', (req, res) => req.session.regenerate(() => res.json({})));
    web.get('/visit', (req, res) => {
      req.session.visits = (req.session.visits ?? 0) + 1;
      res.json({ user: req.user?.id ?? null });
    });
    web.use('/api', (req, res) => res.json({ user: req.user?.id ?? null, subject: req.headers['x-auth-subject'] ?? null }));

    app.backend = await Backend.start({ http: web });
    app.backend.io.engine.use(sessions);
    app.backend.io.on('connection', (socket) => {
      socket.on('session', (reply) => reply(socket.request.session?.passport?.user ?? null));
    });
    app.url = app.backend.url;
    return app;
  }

  async stop() {
    await this.backend.stop();
    this.client.destroy();
  }
}

/** A browser as far as REST goes: it keeps its cookie. */
export class Visitor {
  cookie = undefined;

  constructor(url) {
    this.url = url;
  }

  async send(method, path, body) {
    const headers = { 'content-type': 'application/json', ...(this.cookie && { cookie: this.cookie }) };
    const answer = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const [given] = answer.headers.getSetCookie();
    if (given) this.cookie = given.split(';')[0];
    return { status: answer.status, body: await answer.json().catch(() => undefined) };
  }

  get(path) {
    return this.send('GET', path);
  }

  post(path, body = {}) {
    return this.send('POST', path, body);
  }

  login(username, password = 'right') {
    return this.post('/login', { username, password });
  }

  /** The session's id: what stands in the store behind `sess:`. */
  get sid() {
    return decodeURIComponent(this.cookie.split('=')[1]).slice(2).split('.').slice(0, -1).join('.');
  }
}
