// Unchanged Socket.IO servers (4.x with allowEIO3, 2.5) that tell the tests what they saw.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { Server as ServerV4 } from 'socket.io';
import { Events, within } from './events.mjs';

const ServerV2 = createRequire(import.meta.url)('socket.io-2');

/** What an application could see of who connected; searched for tokens. */
function seenBy(socket) {
  const { headers, query, auth, url, address } = socket.handshake;
  const { rawHeaders } = socket.request;
  return { id: socket.id, ns: socket.nsp.name, conn: socket.conn.id, headers, query, auth, url, address, rawHeaders, requestUrl: socket.request.url };
}

/** Cuts the connection below Engine.IO, as a crash or a broken line would. */
function dropTransport(conn) {
  const { transport } = conn;
  if (transport.socket?.terminate) return transport.socket.terminate();
  // Long-polling without a gate: the held request is cut.
  const held = transport.req?.res ?? transport.res;
  return (transport.req ?? held)?.socket?.destroy() ?? conn.close(true);
}

/** Handlers for what the tests ask of any socket. */
function serve(socket, events) {
  const tag = socket.handshake.query.tag;
  const who = `${tag} ${socket.nsp.name}`;
  events.push(`connection ${who}`, socket);
  socket.on('disconnect', (reason) => events.push(`disconnect ${who}`, reason));
  socket.on('echo', (...args) => args.pop()(...args));
  socket.on('whoami', (reply) => reply(seenBy(socket)));
  socket.on('push', (...args) => socket.emit('pushed', ...args));
  socket.on('binary', (bytes, reply) => {
    socket.emit('bytes', Buffer.from(bytes).reverse(), { nested: Buffer.from([0, 255, 0x1e]) });
    reply(Buffer.isBuffer(bytes), bytes.length, Buffer.from(bytes));
  });
  socket.on('ask', (question, reply) => socket.emit('question', question, (answer) => reply(answer)));
  socket.on('kick', (close) => socket.disconnect(close === true));
  socket.on('drop', () => dropTransport(socket.conn));
}

export class Backend {
  events = new Events('backend');

  /** `version` 4 or 2; `options` go to the Socket.IO server. */
  static async start({ version = 4, options = {}, http, port = 0 } = {}) {
    const backend = new Backend();
    backend.version = version;
    backend.requests = [];
    backend.server = createServer(http ?? ((req, res) => res.writeHead(404).end('not found')));
    backend.server.prependListener('request', (req) => backend.requests.push(`${req.method} ${req.url}`));
    const common = { serveClient: true, ...options };
    backend.io = version === 4 ? new ServerV4(backend.server, { allowEIO3: true, ...common }) : ServerV2(backend.server, common);
    for (const name of ['/', '/admin']) {
      backend.io.of(name).on('connection', (socket) => serve(socket, backend.events));
    }
    backend.io.of('/deny').use((socket, next) => {
      next(Object.assign(new Error('denied by the application'), { data: { code: 42 } }));
    });
    backend.server.listen(port, '127.0.0.1');
    await once(backend.server, 'listening');
    backend.port = backend.server.address().port;
    backend.url = `http://127.0.0.1:${backend.port}`;
    return backend;
  }

  /** The server's socket of the client that carries this tag in its query. */
  async peer(tag, ns = '/') {
    return this.events.next(`connection ${tag} ${ns}`);
  }

  /** `{ value: reason, at }` of that socket's end at the server. */
  async gone(tag, ns = '/') {
    return this.events.first([`disconnect ${tag} ${ns}`]);
  }

  /** How many sockets that client ever had in the namespace. */
  connections(tag, ns = '/') {
    return this.events.count(`connection ${tag} ${ns}`);
  }

  get engineClients() {
    return this.io.engine?.clientsCount ?? this.io.eio?.clientsCount;
  }

  async stop() {
    const closed = once(this.server, 'close');
    this.io.close();
    this.server.close();
    this.server.closeAllConnections();
    await within(closed, 'the backend stops', 5000).catch(() => {});
  }
}
