// A real redis-server on a Unix socket of its own.
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { within } from './events.mjs';

/** Why a test is skipped where there is no redis-server; `tests/run.sh` says so too. */
export const needsRedis = process.env.E2E_NO_REDIS === '1' && 'redis-server could not be installed';

export class Redis {
  static async start() {
    const redis = new Redis();
    redis.dir = await mkdtemp(path.join(tmpdir(), 'siogate-redis-'));
    redis.socket = path.join(redis.dir, 'redis.sock');
    redis.url = `unix:${redis.socket}`;
    await redis.run();
    return redis;
  }

  /** Starts it, with what it had saved. */
  async run() {
    const args = ['--port', '0', '--unixsocket', this.socket, '--dir', this.dir, '--save', '', '--appendonly', 'no'];
    this.child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.exited = new Promise((resolve) => this.child.once('exit', resolve));
    const lines = createInterface({ input: this.child.stdout });
    const ready = new Promise((resolve, reject) => {
      lines.on('line', (line) => line.includes('eady to accept connections') && resolve());
      this.exited.then(() => reject(new Error('redis-server ended')));
      this.child.once('error', reject);
    });
    await within(ready, 'redis-server');
  }

  /** One command by redis-cli. */
  async cli(...args) {
    const { stdout } = await promisify(execFile)('redis-cli', ['-s', this.socket, ...args]);
    return stdout.trim();
  }

  /** Kills it at once; what was saved before stays for `run`. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.exited;
  }

  async stop() {
    await this.kill();
    await rm(this.dir, { recursive: true, force: true });
  }
}
