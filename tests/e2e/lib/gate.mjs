// Starts the real binary with a written configuration, on ports of its own choosing.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Events, within } from './events.mjs';
import { issuedTokens } from './issuer.mjs';
import { toToml } from './toml.mjs';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** `DIRECT=1`: clients talk to the backend itself; what needs a gate is skipped. */
export const DIRECT = process.env.DIRECT === '1';

export function binaryPath() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target');
  const candidates = [process.env.SIOGATE_BIN, path.join(target, 'release/siogate'), path.join(target, 'debug/siogate')];
  const found = candidates.find((file) => file && existsSync(file));
  if (!found) throw new Error(`no siogate binary: set SIOGATE_BIN or run cargo build (looked in ${target})`);
  return found;
}

/** One level of sections deep, which is as deep as the file goes; lists and scalars replace. */
function merge(base, extra) {
  const merged = { ...base };
  for (const [name, value] of Object.entries(extra)) {
    const tables = [merged[name], value].every((v) => v && typeof v === 'object' && !Array.isArray(v));
    merged[name] = tables ? { ...merged[name], ...value } : value;
  }
  return merged;
}

/** `SIOGATE_*` is configuration to the gate, `SIOGATE_BIN` is not. */
const outsideEnv = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SIOGATE_')));

const BASE = {
  server: { listen: ['127.0.0.1:0'], drain_timeout: '2s' },
  admin: { listen: '127.0.0.1:0' },
  log: { format: 'json', level: 'info,siogate=trace' },
};

/** The `[[issuer]]` table for an issuer of the tests. */
export function trust(issuer, extra = {}) {
  const algorithms = [...new Set(issuer.keys.map((key) => key.alg))];
  return { issuer: issuer.url, jwks_url: issuer.jwksUrl, audience: ['chat'], algorithms, leeway: '0s', ...extra };
}

/** The same for a configuration that somebody else wrote. */
const overrides = () => Object.entries(BASE).flatMap(([section, keys]) => Object.entries(keys).flatMap(([key, value]) => [
  '--set', `${section}.${key}=${value}`,
]));

/** The gate's environment in the tests: its own settings are not those of whoever runs them. */
export const gateEnv = (env = {}) => ({ ...outsideEnv(), ...env });

export class Gate {
  lines = [];
  log = new Events('gate log');

  /** `config`: an object, or the text of a `config.toml`; `set`: `KEY=VALUE` over it; `files`: beside it. */
  static async start(config, { env = {}, ready = true, set = [], files = {} } = {}) {
    const gate = new Gate();
    gate.dir = await mkdtemp(path.join(tmpdir(), 'siogate-e2e-'));
    for (const [name, text] of Object.entries(files)) await writeFile(path.join(gate.dir, name), text, { mode: 0o600 });
    const file = path.join(gate.dir, 'config.toml');
    const written = typeof config === 'string';
    await writeFile(file, written ? config : toToml(merge(BASE, config)));
    const args = ['run', '--config', file, ...(written ? overrides() : []), ...set.flatMap((one) => ['--set', one])];
    gate.child = spawn(binaryPath(), args, { cwd: gate.dir, env: gateEnv(env), stdio: ['ignore', 'pipe', 'pipe'] });
    gate.exited = new Promise((resolve) => {
      gate.child.once('exit', (code, signal) => resolve({ code, signal }));
      gate.child.once('error', (error) => resolve({ error }));
    });
    const read = (stream) => new Promise((done) => {
      createInterface({ input: stream }).on('line', (line) => gate.#line(line)).on('close', done);
    });
    gate.drained = Promise.all([read(gate.child.stdout), read(gate.child.stderr)]);
    const failed = gate.exited.then((end) => {
      throw new Error(`the gate ended at its start: ${JSON.stringify(end)}\n${gate.lines.slice(-20).join('\n')}`);
    });
    failed.catch(() => {});
    try {
      const open = Promise.all([gate.#door('public'), gate.#door('admin')]);
      [gate.address, gate.adminAddress] = await Promise.race([open, failed]);
      gate.url = `http://${gate.address}`;
      gate.adminUrl = `http://${gate.adminAddress}`;
      gate.port = Number(gate.address.split(':').at(-1));
      if (ready) await gate.ready();
    } catch (error) {
      gate.child.kill('SIGKILL');
      await rm(gate.dir, { recursive: true, force: true });
      throw error;
    }
    return gate;
  }

  #line(line) {
    this.lines.push(line);
    try {
      const record = JSON.parse(line);
      const fields = { ...record, ...(record.fields ?? {}) };
      this.log.push(fields.message, fields);
    } catch {
      this.log.push('text', line);
    }
  }

  async #door(door) {
    const { address } = await this.log.next('listening', (record) => record.door === door);
    return address;
  }

  /** Waits until /readyz says 200: keys fetched, backend seen. */
  async ready(patience = 10_000) {
    const end = Date.now() + patience;
    for (;;) {
      const answer = await fetch(`${this.adminUrl}/readyz`);
      const body = await answer.text();
      if (answer.status === 200) return;
      if (Date.now() > end) throw new Error(`the gate is not ready: ${answer.status} ${body}`);
      await new Promise((next) => setTimeout(next, 20));
    }
  }

  /** The records of sessions that ended, oldest first. */
  get ended() {
    return this.log.history.filter(([name]) => name === 'session ended').map(([, record]) => record);
  }

  /** The next "session ended" with this reason. */
  sessionEnded(reason, match = () => true) {
    return this.log.next('session ended', (record) => record.reason === reason && match(record));
  }

  /** Stops it as an operator would, and searches its whole log for tokens. */
  async stop({ signal = 'SIGTERM' } = {}) {
    const { child } = this;
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    let end;
    try {
      end = await within(this.exited, `the gate stops at ${signal}`, 10_000);
      await within(this.drained, 'the log of the gate ends', 5000);
    } finally {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await rm(this.dir, { recursive: true, force: true });
    }
    this.#searchLog();
    if (signal === 'SIGTERM' && end.code !== 0) {
      throw new Error(`the gate ended with ${JSON.stringify(end)}\n${this.lines.slice(-20).join('\n')}`);
    }
  }

  #searchLog() {
    const text = this.lines.join('\n');
    for (const token of issuedTokens) {
      const [, claims, signature] = token.split('.');
      for (const part of [claims, signature]) {
        if (part.length < 20 || !text.includes(part)) continue;
        const line = this.lines.find((one) => one.includes(part));
        throw new Error(`a token stands in the gate's log: ${line}`);
      }
    }
    const panic = this.lines.find((line) => line.includes('panicked at'));
    if (panic) throw new Error(`the gate panicked: ${panic}`);
  }
}
