// The client: a stock Socket.IO client, its tokens, and what becomes of it.

const TRANSPORTS = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };
const REFUSALS = [
  ["expired", "Expired token", "expired"],
  ["wrong_audience", "Token for another audience", "audience"],
  ["tampered", "Token changed after signing", "tampered"],
  ["none", "Unsigned token, alg: none", "unsigned"],
  ["missing", "No token at all", "no token"],
];

let settings = null;
let live = null; // the one session: { want, socket, manager, token, leaving, cutAt, count }
let tokens = 0;
let warned = false;
const spans = [];
const ticks = [];

const value = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function wishes() {
  return {
    name: $("name").value.trim() || "alice",
    lifetime: Math.min(3600, Math.max(1, Math.round(Number($("lifetime").value)) || 20)),
    transport: value("transport"),
    place: value("place"),
    namespace: value("namespace"),
  };
}

async function fetchToken(want, variant = "good") {
  const answer = await fetch("/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ sub: want.name, name: want.name, lifetime: want.lifetime, variant }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error_description);
  return { jwt: body.access_token, claims: claimsOf(body.access_token) };
}

/** The token for the next CONNECT: a fresh one, unless this client is to be one that forgets. */
async function nextToken(session) {
  if (session.token && !$("fresh").checked) return session.token;
  const token = await fetchToken(session.want);
  token.number = tokens += 1;
  session.token = token;
  addNote("", `Token ${token.number}`, `issued for ${session.want.name}: ${session.want.lifetime} s, ends ${clock(new Date(token.claims.exp * 1000), 0)}`);
  return token;
}

/** Shows every packet of the manager's engine, each time it opens a new one. */
function watch(manager, label) {
  const hook = () => {
    const engine = manager.engine;
    if (!engine || engine.watched) return;
    engine.watched = true;
    engine.on("packet", (packet) => addPacket("in", packet, label));
    engine.on("packetCreate", (packet) => addPacket("out", packet, label));
    if (label) return;
    engine.on("upgrading", (transport) => addNote("", "Upgrading", `from polling to ${transport.name}`));
    engine.on("upgrade", (transport) => {
      addNote("", "Upgraded", `the session goes on over ${transport.name}`);
      if (live?.manager === manager && live.socket.connected) showOpen();
    });
    engine.on("upgradeError", (error) => addNote("", "Upgrade failed", error.message));
  };
  hook();
  // The event comes just before the manager makes its engine.
  manager.on("reconnect_attempt", () => queueMicrotask(hook));
}

function open(want, options, label) {
  const socket = io(settings.gate + want.namespace, {
    forceNew: true,
    autoConnect: false,
    transports: TRANSPORTS[want.transport],
    timeout: 8000,
    ...options,
  });
  return { socket, start: () => { socket.connect(); watch(socket.io, label); } };
}

// --- the session

async function join() {
  const want = wishes();
  const session = { want, leaving: false, count: 0 };
  live = session;
  show("connecting", "Connecting", `as ${want.name}, over ${want.transport === "upgrade" ? "polling, then WebSocket" : want.transport}`);
  const inAuth = (send) => nextToken(session).then((token) => send({ token: token.jwt }), (error) => {
    addNote("cut", "No token", error.message);
    send({});
  });
  const { socket, start } = open(want, want.place === "auth" ? { auth: inAuth } : {});
  Object.assign(session, { socket, manager: socket.io });
  listen(session);
  if (want.place === "query") await refreshQuery(session);
  if (live === session && !session.leaving) start();
}

/** A query token is fixed in the manager: it is put there anew before each attempt. */
async function refreshQuery(session) {
  try {
    session.manager.opts.query = { token: (await nextToken(session)).jwt };
  } catch (error) {
    addNote("cut", "No token", error.message);
  }
}

function listen(session) {
  const { socket, manager, want } = session;
  socket.on("connect", () => connected(session));
  socket.on("identity", (saw) => showIdentity(saw, new Date()));
  socket.on("connect_error", (error) => {
    const why = reasonOf(error);
    if (socket.active) {
      show("connecting", "The gate did not answer", `${why.message}; the client keeps trying`, { verdict: "no answer", silent: true });
      addNote("cut", "Attempt failed", `${why.code ? `${why.code}: ` : ""}${why.message}`);
      return;
    }
    ticks.push({ at: Date.now(), kind: "no" });
    show("refused", "Refused", `${why.message}. The client stays down until it is asked again.`, { verdict: why.code, backend: "was not asked" });
    addNote("cut", `Refused: ${why.code}`, why.message);
    say(`Refused: ${why.message}`);
  });
  socket.on("disconnect", (reason, details) => disconnected(session, reason, details));
  if (want.place === "query") {
    manager.on("close", () => session.leaving || refreshQuery(session));
    manager.on("reconnect_error", () => refreshQuery(session));
  }
}

function connected(session) {
  const { want, token } = session;
  const now = Date.now();
  session.count += 1;
  session.ends = token.claims.exp * 1000;
  session.span = { from: now, ends: session.ends, label: `token ${token.number}` };
  spans.push(session.span);
  const away = session.cutAt ? now - session.cutAt : 0;
  warned = false;
  session.back = away ? `back by itself ${seconds(away)} after the cut` : "";
  session.cutAt = 0;
  showOpen();
  addNote("good", away ? "Reconnected" : "Connected", `as ${want.name} with token ${token.number}${away ? `, ${session.back}` : ""}`);
  say(`${away ? "Reconnected" : "Connected"} as ${want.name}; the token ends in ${Math.round((session.ends - now) / 1000)} seconds`);
  sent("", "");
}

function showOpen() {
  const { want, token, manager, back } = live;
  const transport = manager.engine.transport.name;
  const parts = [`Token ${token.number}`, `session ${live.count}`, back].filter(Boolean);
  show("open", `Connected as ${want.name}`, parts.join(", "), {
    transport, verdict: `until ${clock(new Date(live.ends), 0)}`, backend: `sees ${want.name}`,
  });
}

function disconnected(session, reason, details) {
  const now = Date.now();
  if (session.span) session.span.until = now;
  if (session !== live || session.leaving) return;
  const { code, word } = closing(details);
  const cut = code === 4401 || code === 401 || now >= session.ends - 1000;
  const facts = [code && (code < 1000 ? `HTTP ${code}` : `close code ${code}`), word && `reason ${word}`, `the client says "${reason}"`];
  const text = facts.filter(Boolean).join(", ");
  session.cutAt = now;
  if (cut) ticks.push({ at: now, kind: "cut" });
  addNote("cut", cut ? "Cut by the gate" : "Disconnected", text);
  const next = session.socket.active ? "The client is coming back" : "The client stays down";
  show("cut", cut ? "Cut by the gate" : "Disconnected", `${facts.filter(Boolean).slice(0, 2).join(", ")}. ${next}.`, {
    verdict: word || "closed", backend: "closed too", down: !session.socket.active,
  });
  sent("", "Not connected.");
  say(`${cut ? "Cut by the gate" : "Disconnected"}: ${text}. ${next}.`);
}

/** What a transport's end carried: a close frame, or the answer to a poll. */
function closing(details) {
  const context = details?.context;
  if (typeof context?.responseText === "string") {
    return { code: details.description || context.status, word: parsed(context.responseText)?.message };
  }
  return { code: context?.code, word: context?.reason };
}

function reasonOf(error) {
  const body = parsed(error.context?.responseText ?? "");
  const status = typeof error.description === "number" && error.description > 0 ? `HTTP ${error.description}` : "";
  return { message: body?.message ?? error.message, code: error.data?.code ?? body?.reason ?? status };
}

function leave() {
  const session = live;
  session.leaving = true;
  session.socket.disconnect();
  if (session.span) session.span.until ??= Date.now();
  live = null;
  addNote("", "Disconnected", "by you");
  showIdle();
}

function showIdle() {
  show("idle", "Nobody is connected", "Log in, connect, and watch the gate end the session when the token does.");
  sent("", "Connect first.");
}

// --- events

function argument(text) {
  const data = parsed(text);
  return data === undefined ? text : data;
}

function send() {
  const { socket } = live;
  const args = [];
  if ($("argument").value !== "") args.push(argument($("argument").value));
  if ($("binary").checked) args.push(crypto.getRandomValues(new Uint8Array(16)).buffer);
  if (!$("ack").checked) {
    socket.emit($("event").value, ...args);
    sent("", "Sent.");
    return;
  }
  const started = performance.now();
  sent("", "Waiting for the answer");
  socket.timeout(5000).emit($("event").value, ...args, (error, ...answer) => {
    if (error) return sent("bad", "No answer within 5 s.");
    const shown = answer.map((a) => (a instanceof ArrayBuffer ? `${a.byteLength} bytes` : JSON.stringify(a))).join(", ");
    sent("good", `Answered in ${(performance.now() - started).toFixed(1)} ms: ${masked(shown).slice(0, 160)}`);
  });
}

// --- refusals

async function refuse(id) {
  const want = wishes();
  showRefusal(id, "", "", "Asking");
  try {
    const jwt = id === "missing" ? null : (await fetchToken(want, id)).jwt;
    const credential = jwt === null ? {} : { [want.place]: { token: jwt } };
    await new Promise((done) => {
      const { socket, start } = open(want, { reconnection: false, ...credential }, REFUSALS.find(([key]) => key === id)[2]);
      const end = (tone, word, text) => {
        showRefusal(id, tone, word, text);
        socket.disconnect();
        done();
      };
      socket.on("connect_error", (error) => {
        const why = reasonOf(error);
        ticks.push({ at: Date.now(), kind: "no" });
        end("bad", why.code || "no code", why.message);
      });
      socket.on("connect", () => end("good", "admitted", "the gate let it in"));
      start();
    });
  } catch (error) {
    showRefusal(id, "bad", "", error.message);
  }
}

// --- the page

function tick() {
  const now = Date.now();
  const phase = $("hero").dataset.phase;
  const lifetime = (phase === "open" ? live.want.lifetime : wishes().lifetime) * 1000;
  const ends = live?.ends ?? now;
  drawRing(phase, ends, lifetime, now);
  drawLane(spans, ticks, lifetime, now);
  if (phase === "open" && !warned && ends - now < 5000 && lifetime > 8000) {
    warned = true;
    say("Five seconds to the cut");
  }
}

async function loadSettings() {
  try {
    settings = await (await fetch("/settings.json")).json();
  } catch {
    settings = null;
  }
  if (!settings?.gate) {
    alertUser("The gate is not up yet. This page looks again every second.");
    setTimeout(loadSettings, 1000);
    return;
  }
  if (!$("alert").hidden) {
    location.reload(); // the page's policy names the gate
    return;
  }
  const bare = (url) => url.replace(/^https?:\/\//, "");
  $("place-gate").textContent = bare(settings.gate);
  $("place-issuer").textContent = bare(settings.issuer);
  $("place-backend").textContent = settings.upstream ? bare(settings.upstream) : "embedded echo";
  $("lifetime").value = settings.lifetime;
  if (settings.upstream) {
    $("identity-empty").textContent = "Your backend does not tell the page what it saw. Look at socket.handshake.headers there, or emit them as \"identity\".";
  }
  $("connect").disabled = false;
}

$("form-session").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("connect").dataset.act === "leave") return leave();
  if (live) {
    live.leaving = true;
    live.socket.disconnect();
  }
  join().catch((error) => alertUser(error.message));
});
$("form-send").addEventListener("submit", (event) => {
  event.preventDefault();
  if (live?.socket.connected) send();
});
$("refuse-all").addEventListener("click", async () => {
  $("refuse-all").disabled = true;
  for (const [id] of REFUSALS) await refuse(id);
  $("refuse-all").disabled = false;
});
$("beats").addEventListener("change", () => $("log").classList.toggle("no-beats", !$("beats").checked));
$("clear").addEventListener("click", clearLog);
for (const [id, title] of REFUSALS) addRefusal(id, title, () => refuse(id));

$("connect").disabled = true;
showIdle();
tick();
setInterval(tick, 250);
loadSettings();
