// One face for the stock clients: socket.io-client 4, 3 and 2 in this process, python-socketio beside it.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Events, within } from './events.mjs';

const require = createRequire(import.meta.url);
const libraries = {
  v4: require('socket.io-client'),
  v3: require('socket.io-client-3'),
  v2: require('socket.io-client-2'),
};

export const TRANSPORTS = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] };
export const PLACES = ['header', 'query', 'cookie', 'auth'];

/** A cookie beside the credential that must reach the backend untouched. */
export const OTHER_COOKIES = ['theme=dark', 'lang=en'];

/** Puts the token where the application would. */
export function credential(place, token) {
  switch (place) {
    case 'header':
      return { headers: { authorization: `Bearer ${token}` } };
    case 'query':
      return { query: { token } };
    case 'cookie':
      return { headers: { cookie: [OTHER_COOKIES[0], `token=${token}`, OTHER_COOKIES[1]].join('; ') } };
    case 'auth':
      return { auth: { token, room: 'lobby' } };
    case 'none':
      return {};
    default:
      throw new Error(`no such place: ${place}`);
  }
}

let tags = 0;
/** A mark in the query by which the backend knows whose socket it is. */
export const freshTag = () => `t${process.pid}x${(tags += 1)}`;

class JsSocket {
  constructor(library, raw, label) {
    this.raw = raw;
    this.events = new Events(label);
    const push = (name) => (...args) => this.events.push(name, args);
    raw.on('connect', push('connect'));
    raw.on('disconnect', (reason, details) => {
      this.events.push('disconnect', { reason, details, body: details?.context?.responseText });
    });
    raw.on('connect_error', (error) => {
      // The request is emptied right after this event.
      const body = error?.context?.responseText;
      this.events.push('refused', { message: error?.message, data: error?.data, body, error });
    });
    // Only library 2 tells a refusal by `error`, with the server's object as it came; an Error is the engine's own trouble.
    if (library === 'v2') {
      raw.on('error', (data) => {
        if (!(data instanceof Error)) this.events.push('refused', { message: data?.message ?? data, data, error: data });
      });
    }
    raw.on('pushed', push('pushed'));
    raw.on('missed', push('missed'));
    raw.on('bytes', push('bytes'));
    raw.on('question', (question, reply) => reply(`answer to ${question}`));
  }

  get id() {
    return this.raw.id;
  }

  connect() {
    this.raw.connect();
    return this;
  }

  /** Resolves once connected; a refusal is thrown. */
  async ready() {
    const { name, value } = await this.events.first(['connect', 'refused']);
    if (name === 'connect') return this;
    throw Object.assign(new Error(`refused: ${value.message}`), { refusal: value });
  }

  /** The refusal; being let in is the failure. */
  async refusal() {
    const { name, value } = await this.events.first(['connect', 'refused']);
    if (name === 'refused') return value;
    throw new Error('was let in');
  }

  emit(name, ...args) {
    this.raw.emit(name, ...args);
  }

  /** Emits and resolves with what the acknowledgement carries. */
  call(name, ...args) {
    const answered = new Promise((resolve) => this.raw.emit(name, ...args, (...answer) => resolve(answer)));
    return within(answered, `${this.events.label}: acknowledgement of ${name}; happened: ${this.events.summary()}`);
  }

  async disconnected() {
    const { value, at } = await this.events.first(['disconnect']);
    return { ...value, at };
  }
}

class JsConnection {
  constructor(library, url, options) {
    const { transport, headers, query = {}, auth, reconnection = false, tag = freshTag(), path = '/socket.io/', extra = {} } = options;
    this.library = library;
    this.tag = tag;
    this.auth = auth;
    this.events = new Events(`${library} ${transport} ${tag} engine`);
    const { Manager } = libraries[library];
    this.manager = new Manager(url, {
      path,
      transports: TRANSPORTS[transport],
      extraHeaders: headers,
      query: { ...query, tag },
      forceNew: true,
      autoConnect: false,
      reconnection,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      ...extra,
    });
    this.transport = transport;
    this.sockets = {};
    this.manager.on('reconnect', () => this.events.push('reconnect'));
  }

  /** A socket in a namespace, not yet connected. */
  socket(ns = '/', auth = this.auth) {
    const raw = this.manager.socket(ns, { auth });
    const wrapped = new JsSocket(this.library, raw, `${this.library} ${this.transport} ${this.tag} ${ns}`);
    this.sockets[ns] = wrapped;
    return wrapped;
  }

  open(namespaces) {
    const sockets = namespaces.map((ns) => this.socket(ns));
    this.manager.connect();
    for (const socket of sockets) socket.connect();
    this.#watchUpgrade();
    return sockets;
  }

  #watchUpgrade() {
    this.engine.on('upgrade', () => this.events.push('upgrade'));
  }

  get engine() {
    return this.manager.engine;
  }

  get transportName() {
    return this.engine.transport.name;
  }

  /** Resolves when the connection is where its options want it. */
  async settled() {
    const wanted = TRANSPORTS[this.transport].at(-1);
    if (this.transportName !== wanted) await this.events.next('upgrade');
    if (this.transportName !== wanted) throw new Error(`on ${this.transportName} instead of ${wanted}`);
  }

  get reconnecting() {
    return Boolean(this.manager._reconnecting ?? this.manager.reconnecting);
  }

  /** The client's line breaks; the library notices as it would in the field. */
  drop() {
    this.engine.close();
  }

  async close() {
    this.manager.reconnection(false);
    this.manager.skipReconnect = true;
    for (const socket of Object.values(this.sockets)) socket.raw.close();
    this.engine?.close();
  }
}

/** The python-socketio process of this test file, started when first needed. */
class Python {
  #answers = new Map();
  #connections = new Map();
  #next = 0;

  constructor() {
    const dir = fileURLToPath(new URL('..', import.meta.url));
    const interpreter = process.env.E2E_PYTHON ?? `${dir}.venv/bin/python`;
    if (!existsSync(interpreter)) throw new Error(`no ${interpreter}: tests/run.sh makes it`);
    const env = { ...process.env, NO_PROXY: '*', PYTHONUNBUFFERED: '1' };
    this.child = spawn(interpreter, [`${dir}lib/client.py`], { env, stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.child.stdout }).on('line', (line) => this.#line(JSON.parse(line, reviveBytes)));
  }

  #line(message) {
    if (message.id !== undefined) {
      const answer = this.#answers.get(message.id);
      this.#answers.delete(message.id);
      return message.error === undefined ? answer.resolve(message.ok) : answer.reject(new Error(message.error));
    }
    return this.#connections.get(message.conn)?.happened(message);
  }

  add(connection) {
    this.#connections.set(connection.tag, connection);
  }

  ask(op, fields) {
    const id = (this.#next += 1);
    const answered = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.child.stdin.write(`${JSON.stringify({ id, op, ...fields }, keepBytes)}\n`);
    return within(answered, `python: answer to ${op} ${fields.event ?? ''}`);
  }

  async stop() {
    const gone = new Promise((done) => this.child.once('exit', done));
    this.child.stdin.end();
    await within(gone, 'python ends', 5000).catch(() => this.child.kill('SIGKILL'));
  }
}

// Buffers cross the JSON lines as {"$bytes": base64}.
function keepBytes(_, value) {
  if (value?.type === 'Buffer' && Array.isArray(value.data)) return { $bytes: Buffer.from(value.data).toString('base64') };
  return value;
}
function reviveBytes(_, value) {
  return value && typeof value.$bytes === 'string' ? Buffer.from(value.$bytes, 'base64') : value;
}

let python;
export async function stopPython() {
  await python?.stop();
  python = undefined;
}

class PythonSocket {
  constructor(connection, ns) {
    this.connection = connection;
    this.ns = ns;
    this.events = new Events(`python ${connection.transport} ${connection.tag} ${ns}`);
  }

  ready = JsSocket.prototype.ready;
  refusal = JsSocket.prototype.refusal;
  disconnected = JsSocket.prototype.disconnected;

  happened(event, args) {
    switch (event) {
      case 'connect':
        [this.id] = args;
        return this.events.push('connect', args);
      case 'disconnect':
        return this.events.push('disconnect', { reason: args[0] });
      case 'connect_error': {
        const [data] = args;
        const message = data?.message ?? data;
        return this.events.push('refused', { message, data: data?.data, error: data });
      }
      default:
        return this.events.push(event, args);
    }
  }

  emit(event, ...args) {
    return this.connection.ask('emit', { ns: this.ns, event, args });
  }

  call(event, ...args) {
    return this.connection.ask('call', { ns: this.ns, event, args });
  }
}

class PythonConnection {
  library = 'python';

  constructor(url, options) {
    const { transport, headers, query = {}, auth, reconnection = false, tag = freshTag(), path = '/socket.io/' } = options;
    Object.assign(this, { url, transport, tag, sockets: {} });
    this.settings = { headers: headers ?? {}, query: { ...query, tag }, auth: auth ?? null, reconnection, path, transports: TRANSPORTS[transport] };
    this.events = new Events(`python ${tag}`);
    python ??= new Python();
    python.add(this);
  }

  ask(op, fields = {}) {
    return python.ask(op, { conn: this.tag, ...fields });
  }

  open(namespaces) {
    const sockets = namespaces.map((ns) => {
      this.sockets[ns] = new PythonSocket(this, ns);
      return this.sockets[ns];
    });
    this.opened = this.ask('open', { url: this.url, namespaces, ...this.settings });
    // A refused handshake is an exception there and a refusal here.
    this.opened.catch((error) => {
      for (const socket of sockets) socket.events.push('refused', { message: error.message, error });
    });
    return sockets;
  }

  happened({ ns, event, args }) {
    this.sockets[ns]?.happened(event, args);
  }

  async settled() {
    await this.opened;
    const wanted = TRANSPORTS[this.transport].at(-1);
    const name = await this.ask('transport');
    if (name !== wanted) throw new Error(`on ${name} instead of ${wanted}`);
  }

  async close() {
    await this.ask('close');
  }
}

/** `library`: v4, v3, v2 or python. `options`: transport, headers, query, auth, reconnection, tag. */
export function client(library, url, options) {
  return library === 'python' ? new PythonConnection(url, options) : new JsConnection(library, url, options);
}

/** Which protocol revision the library speaks. */
export const speaksEio3 = (library) => library === 'v2';
export const placesOf = (library) => PLACES.filter((place) => place !== 'auth' || !speaksEio3(library));
