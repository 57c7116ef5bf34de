// Everything that touches the page, and nothing that touches the network.

const $ = (id) => document.getElementById(id);
const ROWS = 600;
const ARROWS = { out: "M3 7h8M8 4l3 3-3 3", in: "M11 7H3M6 4 3 7l3 3" };

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function arrow(direction) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("class", "dir");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", direction === "out" ? "sent" : "received");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ARROWS[direction]);
  svg.append(path);
  return svg;
}

/** The hour is left to the tooltip: the list is narrow. */
function stamp() {
  const now = new Date();
  const time = make("time", "", clock(now).slice(3));
  time.dateTime = now.toISOString();
  time.title = clock(now);
  return time;
}

/** The outcome of the last event sent. */
function sent(tone, text) {
  $("sent").dataset.tone = tone;
  $("sent").textContent = text;
}

/** Said to people who do not see the page. */
function say(text) {
  $("say").textContent = text;
}

function alertUser(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

// --- the list of packets

const tally = { in: 0, out: 0, bytes: 0 };

function append(item) {
  const box = $("log-box");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  $("log").append(item);
  while ($("log").childElementCount > ROWS) $("log").firstElementChild.remove();
  $("log-empty").hidden = true;
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function addPacket(direction, packet, label) {
  const seen = explain(packet, direction);
  const classes = [direction, seen.beat && "beat", seen.error && "error"].filter(Boolean).join(" ");
  const meaning = make("span", "meaning");
  if (label) meaning.append(make("em", "", label));
  meaning.append(seen.meaning ?? "");
  meaning.title = seen.meaning ?? "";
  const summary = make(
    "summary", "",
    stamp(), arrow(direction), make("span", "pill kind", seen.kind), meaning,
    make("span", "bytes", String(seen.bytes)),
  );
  const details = make("details", "", summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(make("pre", "", unfold(seen.raw)));
  });
  append(make("li", classes, details));
  tally[direction] += 1;
  tally.bytes += seen.bytes;
  $("tally").textContent = `${tally.out} sent, ${tally.in} received, ${tally.bytes.toLocaleString("en")} bytes`;
}

/** A line across the list: something happened that is not a packet. */
function addNote(tone, title, text = "") {
  const words = make("span", "", make("b", "", title), text && ` ${text}`);
  append(make("li", `note ${tone}`, stamp(), words));
}

function clearLog() {
  $("log").replaceChildren();
  $("log-empty").hidden = false;
  Object.assign(tally, { in: 0, out: 0, bytes: 0 });
  $("tally").textContent = "none yet";
}

// --- the countdown, the path and the lane

/** phase: idle, connecting, open, cut, refused; path.down: nothing will happen by itself;
 * path.silent: nobody answers. */
function show(phase, headline, subline, path = {}) {
  const hero = $("hero");
  hero.dataset.phase = phase;
  $("headline").textContent = headline;
  $("subline").textContent = subline;
  $("link-client").toggleAttribute("data-on", phase === "open" || (phase === "connecting" && !path.silent));
  $("link-backend").toggleAttribute("data-on", phase === "open");
  $("path-transport").textContent = path.transport ?? "stock client";
  $("path-verdict").textContent = path.verdict ?? "verifies first";
  $("path-backend").textContent = path.backend ?? "sees nothing";
  const busy = !["idle", "refused"].includes(phase) && !path.down;
  $("connect").textContent = busy ? "Disconnect" : "Log in and connect";
  $("connect").dataset.act = busy ? "leave" : "join";
  $("send").disabled = phase !== "open";
  if (phase !== "open" && !$("identity-box").hidden) $("identity-when").textContent = "ended";
}

function drawRing(phase, ends, lifetime, now) {
  const left = Math.max(0, ends - now);
  const ring = $("ring");
  const counting = phase === "open";
  const full = counting ? Math.min(1, left / lifetime) : 0;
  ring.style.strokeDashoffset = String(1000 * (1 - full));
  ring.style.strokeLinecap = full > 0 ? "round" : "butt";
  $("hero").toggleAttribute("data-low", counting && left < Math.min(5000, lifetime / 3));
  const word = { cut: "Cut", refused: "Refused" }[phase];
  const total = Math.ceil((counting ? left : lifetime) / 1000);
  $("ring-number").textContent = word ?? (total < 600 ? total : `${Math.round(total / 60)}`);
  $("ring-number").classList.toggle("word", Boolean(word));
  const unit = total < 600 ? "seconds" : "minutes";
  $("ring-label").textContent = { cut: "token ended", refused: "by the gate" }[phase] ?? (counting ? `${unit} left` : unit);
}

/** spans: { from, ends, until, label }, ticks: { at, kind }; times in ms. */
function drawLane(spans, ticks, lifetime, now) {
  const past = Math.max(60_000, 2 * lifetime);
  const future = Math.max(30_000, 1.1 * lifetime);
  const lane = $("lane");
  const at = (time) => (100 * (time - now + past)) / (past + future);
  lane.parentElement.style.setProperty("--now", `${at(now)}%`);
  $("scale-from").textContent = `${Math.round(past / 1000)} s ago`;
  $("scale-to").textContent = `in ${Math.round(future / 1000)} s`;
  const keep = new Set();
  for (const span of spans) {
    const end = span.until ?? Math.max(now, span.ends);
    if (at(end) < 0) continue;
    span.node ??= lane.appendChild(make("div", "span", make("i"), make("span", "", span.label)));
    span.node.style.left = `${at(span.from)}%`;
    span.node.style.width = `${at(end) - at(span.from)}%`;
    const elapsed = (span.until ?? now) - span.from;
    span.node.firstChild.style.width = `${(100 * elapsed) / (end - span.from || 1)}%`;
    // The label stands on the elapsed part, which is dark, once that is wide enough.
    const wide = (lane.clientWidth * (at(span.until ?? now) - Math.max(0, at(span.from)))) / 100;
    span.node.lastChild.style.left = `${8 + Math.max(0, (-at(span.from) * lane.clientWidth) / 100)}px`;
    span.node.lastChild.hidden = wide < 12 + 7 * span.label.length;
    keep.add(span.node);
  }
  for (const tick of ticks) {
    if (at(tick.at) < 0) continue;
    tick.node ??= lane.appendChild(make("div", `tick ${tick.kind}`));
    tick.node.style.left = `${at(tick.at)}%`;
    keep.add(tick.node);
  }
  for (const node of [...lane.children]) {
    if (!keep.has(node) && !node.classList.contains("now")) node.remove();
  }
}

// --- what the backend saw

const FIRST = ["x-auth-subject", "x-auth-name", "x-auth-expires", "x-auth-session", "x-auth-issuer", "x-siogate-assertion"];

function showIdentity(saw, when) {
  const rank = ([name]) => (FIRST.indexOf(name) + 1 || FIRST.length + 1) + (name.startsWith("x-") ? 0 : 1);
  const rows = Object.entries(saw.headers ?? {}).sort((a, b) => rank(a) - rank(b));
  rows.push(["socket.handshake.auth", JSON.stringify(saw.auth ?? null)], ["request target", saw.target ?? ""]);
  $("identity").replaceChildren(...rows.map(([name, value]) => {
    const cell = make("td", "", masked(String(value)));
    const extra = gloss(name, String(value));
    if (extra) cell.append(make("small", "", extra));
    const head = make("th", "", name);
    head.scope = "row";
    return make("tr", "", head, cell);
  }));
  const leaked = /eyJ[\w-]*\.[\w-]*\.[\w-]*/.test(JSON.stringify([saw.auth ?? null, saw.target ?? ""]));
  $("identity-token").dataset.tone = leaked ? "bad" : "good";
  $("identity-token").textContent = leaked
    ? "The client's token reached the backend: it was not removed on the way."
    : "The client's token is not among it: the gate removed it.";
  $("identity-when").textContent = clock(when, 0);
  $("identity-empty").hidden = true;
  $("identity-box").hidden = false;
}

function gloss(name, value) {
  if (name === "x-auth-expires" && /^\d+$/.test(value)) return `${clock(new Date(value * 1000), 0)}, this machine's time`;
  const claims = name === "x-siogate-assertion" ? claimsOf(value) : null;
  if (!claims) return "";
  return `signed by the gate: ${["iss", "sub", "aud"].map((key) => `${key} ${claims[key]}`).join(", ")}, for ${claims.exp - claims.iat} s`;
}

// --- the refusals

function addRefusal(id, title, run) {
  const output = make("output");
  output.id = `refused-${id}`;
  output.setAttribute("aria-live", "polite");
  const button = make("button", "", make("b", "", title), make("span", "go", "Try"));
  button.type = "button";
  button.addEventListener("click", run);
  $("refusals").append(make("li", "", button, output));
}

function showRefusal(id, tone, word, text) {
  const pill = word ? [make("span", `pill ${tone}`, word), ` ${text}`] : [text];
  $(`refused-${id}`).replaceChildren(...pill);
}
