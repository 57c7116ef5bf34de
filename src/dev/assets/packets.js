// What a packet means. Nothing here touches the page or the network.

const utf8 = new TextEncoder();
const JWT = /eyJ[\w-]*\.[\w-]*\.[\w-]*/g;
const SOCKET_IO = ["CONNECT", "DISCONNECT", "EVENT", "ACK", "CONNECT_ERROR", "BINARY_EVENT", "BINARY_ACK"];

/** The claims of a token, or null. Read, not verified: the gate does that. */
function claimsOf(jwt) {
  try {
    const bytes = Uint8Array.from(atob(jwt.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

/** Tokens are cut short wherever they are shown. */
function masked(text) {
  return text.replace(JWT, (jwt) => `${jwt.slice(0, 8)}… ${jwt.length} characters`);
}

function clock(date, digits = 3) {
  const pad = (n, w = 2) => String(n).padStart(w, "0");
  const whole = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return digits ? `${whole}.${pad(date.getMilliseconds(), 3)}` : whole;
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}

function hex(buffer) {
  const bytes = new Uint8Array(buffer);
  const shown = Array.from(bytes.slice(0, 16), (b) => b.toString(16).padStart(2, "0")).join(" ");
  return bytes.length > 16 ? `${shown} …` : shown;
}

/** One Engine.IO packet as engine.io-client hands it out: { type, data }. */
function explain(packet, direction) {
  const { type, data } = packet;
  if (type === "message" && typeof data !== "string") {
    const buffer = data instanceof ArrayBuffer ? data : data?.buffer ?? new ArrayBuffer(0);
    return { kind: "BINARY", meaning: `attachment: ${hex(buffer)}`, bytes: buffer.byteLength, raw: hex(buffer) };
  }
  const text = data ?? "";
  const bytes = 1 + utf8.encode(text).length;
  if (type === "message") return { bytes, raw: text, ...explainMessage(text, direction) };
  if (type === "open") return { kind: "OPEN", bytes, raw: text, meaning: explainOpen(text) };
  if (type === "ping" || type === "pong") {
    return { kind: type.toUpperCase(), bytes, raw: text, beat: true, meaning: type === "ping" ? "still there?" : "still here" };
  }
  return { kind: type.toUpperCase(), bytes, raw: text, meaning: type === "noop" ? "nothing: ends the held poll" : "" };
}

function explainOpen(text) {
  const open = parsed(text) ?? {};
  const parts = [`session ${String(open.sid ?? "").slice(0, 8)}…`, `ping every ${open.pingInterval / 1000} s`];
  if (open.upgrades?.length) parts.push(`upgrades to ${open.upgrades.join(", ")}`);
  if (open.maxPayload) parts.push(`at most ${open.maxPayload < 1e6 ? `${open.maxPayload / 1e3} kB` : `${open.maxPayload / 1e6} MB`}`);
  return parts.join(", ");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The Socket.IO packet inside a message: type, attachments, namespace, acknowledgement id, JSON. */
function explainMessage(text, direction) {
  const [, digit, , namespace = "/", id, json] = text.match(/^([0-6])(?:(\d+)-)?(?:(\/[^,]*),?)?(\d+)?([^]*)$/) ?? [];
  if (digit === undefined) return { kind: "MESSAGE", meaning: masked(text) };
  const data = parsed(json);
  const kind = SOCKET_IO[digit];
  const meaning = {
    CONNECT: () => (direction === "out" ? joining(namespace, data) : `joined ${namespace}, socket id ${data?.sid ?? ""}`),
    DISCONNECT: () => `leave ${namespace}`,
    EVENT: () => call(data) + (id ? `, wants acknowledgement ${id}` : ""),
    ACK: () => `answer to ${id}: ${list(data)}`,
    CONNECT_ERROR: () => [data?.data?.code, data?.message].filter(Boolean).join(": "),
    BINARY_EVENT: () => call(data) + (id ? `, wants acknowledgement ${id}` : ""),
    BINARY_ACK: () => `answer to ${id}: ${list(data)}`,
  }[kind]();
  return { kind, meaning: masked(meaning), error: kind === "CONNECT_ERROR" };
}

function joining(namespace, data) {
  const claims = typeof data?.token === "string" ? claimsOf(data.token) : null;
  if (!claims) return `join ${namespace}, nothing in the payload`;
  return `join ${namespace} as ${claims.sub}, token ends ${clock(new Date(claims.exp * 1000), 0)}`;
}

function call(data) {
  if (!Array.isArray(data)) return "";
  const [name, ...args] = data;
  return name === "identity" ? "identity: what the backend saw" : `${name}(${list(args)})`;
}

function list(args) {
  const one = (value) => (value?._placeholder ? `attachment ${value.num}` : JSON.stringify(value));
  return Array.isArray(args) ? args.map(one).join(", ") : "";
}

/** The whole packet for the opened row: JSON over several lines, tokens as their claims. */
function unfold(raw) {
  const start = raw.search(/[[{]/);
  const data = start < 0 ? undefined : parsed(raw.slice(start));
  const body = data === undefined ? raw : `${raw.slice(0, start)}${JSON.stringify(data, null, 2)}`;
  const tokens = [...raw.matchAll(JWT)].map(([jwt]) => `token claims ${JSON.stringify(claimsOf(jwt), null, 2)}`);
  return [masked(body), ...tokens].join("\n\n") || "(empty)";
}
