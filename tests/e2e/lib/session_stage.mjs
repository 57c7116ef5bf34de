// An application with express-session, the Redis where its sessions are, and a gate that reads them there.
import { ExpressApp, SECRET } from './express_app.mjs';
import { Gate } from './gate.mjs';
import { Redis } from './redis.mjs';
import { Stage } from './stage.mjs';

export class SessionStage extends Stage {
  /** `store`: of `[[session_store]]`; `config`: the gate's, besides it; `app`: options of ExpressApp.start. */
  static async open({ store = {}, config = {}, app = {}, env = {} } = {}) {
    const stage = new SessionStage();
    try {
      stage.redis = stage.own(await Redis.start());
      stage.app = stage.own(await ExpressApp.start(stage.redis, app));
      stage.gate = stage.own(await Gate.start({
        upstream: { urls: [stage.app.url] },
        session_store: [{ secret_env: ['SESSION_SECRET'], redis_url: stage.redis.url, ...store }],
        http: { route: [{ path: '/', auth: 'pass' }] },
        ...config,
      }, { env: { SESSION_SECRET: SECRET, ...env } }));
      stage.url = stage.gate.url;
    } catch (error) {
      await stage.close().catch(() => {});
      throw error;
    }
    return stage;
  }
}
