// A backend, an issuer and a gate between the two: what most test files stand on.
import { Backend } from './backend.mjs';
import { client, credential } from './clients.mjs';
import { DIRECT, Gate, trust } from './gate.mjs';
import { Issuer } from './issuer.mjs';

let users = 0;
/** A subject that no other test has. */
export const freshUser = () => `user-${process.pid}-${(users += 1)}`;

/** Why a test is skipped when there is no gate. */
export const needsGate = DIRECT && 'needs the gate';

export class Stage {
  owned = [];

  /** `backend`: options of Backend.start; `config`: the gate's, over the defaults of the tests. */
  static async open({ backend = {}, config = {}, issuer: rules = {}, backendInstance, issuerInstance, env } = {}) {
    const stage = new Stage();
    try {
      stage.backend = backendInstance ?? stage.own(await Backend.start(backend));
      stage.issuer = issuerInstance ?? stage.own(await Issuer.start());
      stage.url = stage.backend.url;
      if (!DIRECT) {
        const base = { upstream: { urls: [stage.backend.url] }, issuer: [trust(stage.issuer, rules)] };
        stage.gate = stage.own(await Gate.start({ ...base, ...config }, { env }));
        stage.url = stage.gate.url;
      }
    } catch (error) {
      await stage.close().catch(() => {});
      throw error;
    }
    return stage;
  }

  /** What is stopped by `close`, the last one first. */
  own(thing) {
    this.owned.unshift(thing);
    return thing;
  }

  /** A client with a token in that place, not opened yet. */
  client(library, transport, place, token, options = {}) {
    return client(library, this.url, mergePlaced(options, credential(place, token), transport));
  }

  /** Stops the gate first, so that its log is complete and searched. */
  async close() {
    const failures = [];
    for (const thing of this.owned) await thing.stop().catch((error) => failures.push(error));
    if (failures.length) throw failures[0];
  }
}

function mergePlaced(options, placed, transport) {
  return {
    ...options,
    transport,
    headers: { ...options.headers, ...placed.headers },
    query: { ...options.query, ...placed.query },
    auth: placed.auth ?? options.auth,
  };
}
