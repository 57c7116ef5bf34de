// Bare WebSockets, bare long-polling, bare TCP: for what no stock client would send.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import WebSocket from 'ws';
import { Events, within } from './events.mjs';

/** The address of an Engine.IO request. */
export function engineUrl(base, query = {}, path = '/socket.io/') {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries({ EIO: '4', transport: 'polling', ...query })) {
    if (value !== undefined) url.searchParams.append(name, value);
  }
  return url.href;
}

/** A WebSocket whose happenings are awaited: `message` (string or Buffer), `close`, `refused`. */
export class RawSocket {
  events = new Events('raw websocket');

  constructor(base, { query = {}, headers = {}, path, protocols } = {}) {
    const url = engineUrl(base, { transport: 'websocket', ...query }, path).replace(/^http/, 'ws');
    this.ws = new WebSocket(url, protocols, { headers, perMessageDeflate: false });
    this.ws.on('open', () => this.events.push('open'));
    this.ws.on('message', (data, binary) => this.events.push('message', binary ? data : data.toString()));
    this.ws.on('close', (code, reason) => this.events.push('close', { code, reason: reason.toString() }));
    this.ws.on('error', (error) => this.events.push('error', error.message));
    this.ws.on('unexpected-response', (request, response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const { statusCode: status, headers: answered } = response;
        this.events.push('refused', { status, headers: answered, body: Buffer.concat(chunks).toString() });
      });
      response.on('error', () => {});
    });
  }

  send(data) {
    this.ws.send(data);
  }

  /** The next message that is no heartbeat. */
  message() {
    return this.events.next('message', (data) => data !== '2');
  }

  /** The OPEN packet as an object. */
  async opened() {
    const { name, value } = await this.events.first(['message', 'refused', 'close']);
    if (name !== 'message' || value[0] !== '0') throw new Error(`no OPEN but ${name} ${JSON.stringify(value)}`);
    this.open = JSON.parse(value.slice(1));
    return this.open;
  }

  /** `{ value: { code, reason }, at }` */
  closed() {
    return this.events.first(['close']);
  }

  refused() {
    return this.events.next('refused');
  }

  terminate() {
    this.ws.terminate();
  }
}

/** A long-polling session by hand. */
export class RawPolling {
  constructor(base, { query = {}, headers = {}, path } = {}) {
    Object.assign(this, { base, query, headers, path });
  }

  #url(query) {
    return engineUrl(this.base, { ...this.query, sid: this.sid, ...query }, this.path);
  }

  async request(method, body, { query = {}, headers = {}, signal } = {}) {
    const type = body === undefined ? {} : { 'content-type': 'text/plain;charset=UTF-8' };
    const init = { method, body, signal, headers: { ...type, ...this.headers, ...headers } };
    const response = await within(fetch(this.#url(query), init), `${method} of a polling session`);
    return { status: response.status, headers: response.headers, body: await response.text() };
  }

  get(options) {
    return this.request('GET', undefined, options);
  }

  post(body, options) {
    return this.request('POST', body, options);
  }

  async opened() {
    const answer = await this.get();
    if (answer.status !== 200) throw new Error(`no OPEN but ${answer.status} ${answer.body}`);
    const [first, ...more] = answer.body.split('\x1e');
    this.open = JSON.parse(first.slice(1));
    this.sid = this.open.sid;
    this.behindOpen = more;
    return this.open;
  }

  /** Polls until a packet comes that is no heartbeat; answers heartbeats. */
  async packet() {
    for (;;) {
      if (this.queue?.length) return this.queue.shift();
      const { status, body } = await this.get();
      if (status !== 200) throw Object.assign(new Error(`poll answered ${status} ${body}`), { status, body });
      const packets = body.split('\x1e');
      if (packets.includes('2')) await this.post('3');
      this.queue = packets.filter((packet) => packet !== '2' && packet !== '6');
    }
  }
}

/** One exchange of bytes as written; resolves with all that came until the peer closed. */
export async function rawExchange(port, text, { half = false } = {}) {
  const socket = connect(port, '127.0.0.1');
  const chunks = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  const closed = new Promise((done) => socket.once('close', done));
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(text, 'latin1');
  if (half) socket.end();
  await within(closed, 'the peer closes');
  return Buffer.concat(chunks).toString('latin1');
}

/** A listener that speaks nothing and counts who came and what was said. */
export class SilentBackend {
  connections = 0;
  bytes = 0;
  events = new Events('silent backend');
  #sockets = new Set();

  static async start() {
    const backend = new SilentBackend();
    backend.server = createServer((socket) => {
      backend.connections += 1;
      backend.#sockets.add(socket);
      backend.events.push('connection', socket.remotePort);
      let text = '';
      socket.on('data', (chunk) => {
        backend.bytes += chunk.length;
        text += chunk.toString('latin1');
        if (text.includes('\r\n\r\n')) backend.events.push('head', text);
      });
      socket.on('close', () => {
        backend.#sockets.delete(socket);
        backend.events.push('closed');
      });
      socket.on('error', () => {});
    });
    backend.server.listen(0, '127.0.0.1');
    await once(backend.server, 'listening');
    backend.port = backend.server.address().port;
    backend.url = `http://127.0.0.1:${backend.port}`;
    return backend;
  }

  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((done) => this.server.close(done));
  }
}
