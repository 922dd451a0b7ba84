// The entries, and what is said of one: a line of JSON each, as in ledger.jsonl.
const lines = $("ledger").textContent.split("\n").filter(Boolean);
const boxes = run.containers || [];
const routes = run.routes || [];
const connections = new Map((run.connections || []).map((connection) => [connection.id, connection]));
const boxOf = (name) => boxes.findIndex((box) => box.name === name);
const entries = lines.map((line, i) => {
  const e = JSON.parse(line);
  e.near ||= [];
  e.remedy ||= [];
  e.box = typeof e.container === "number" ? e.container : boxOf(e.container);
  if (e.box < 0) e.box = boxes.push({ name: String(e.container), image: "", started: null, ended: null }) - 1;
  return Object.assign(e, { line, i });
});
const logs = (run.logs || []).map((log) => ({
  ...log,
  box: typeof log.container === "number" ? log.container : boxOf(log.container),
}));
const byNumber = new Map(entries.map((e) => [e.n, e]));

const at = (ms) => `${(ms / 1000).toFixed(3)} s`;
const DEFAULT_PORTS = { https: 443, http: 80 };
const port = (e) => (isNothing(e.port) || DEFAULT_PORTS[e.scheme] === e.port ? "" : `:${e.port}`);
const isBad = (e) => !!e.fails;
const isOut = (e) => e.outcome === "passthrough" || !!e.reached;
const isQuiet = (e) => e.outcome === "recorded" && !isBad(e) && !e.fault;
const connectionOf = (e) => (e.connection ? connections.get(e.connection) : undefined);
const routeOf = (e) => (isNothing(e.route) ? undefined : routes[e.route]);
const isPacket = (e) => ["udp", "icmp", "packet"].includes(e.kind);

// Where an entry begins and ends in time. The first of a connection has the time that the connection took to open.
const marksOf = (e) => e.marks || {};
function begin(e) {
  const connection = connectionOf(e);
  const opened = connection && connection.first === e.n ? connection.opened : null;
  return Math.min(opened ?? e.at, marksOf(e).begun ?? e.at, e.at);
}
function end(e) {
  const messages = e.messages || [];
  const last = messages.length ? messages[messages.length - 1].at : 0;
  const answered = e.kind === "dns" ? marksOf(e).answered : null;
  return Math.max(e.at + (e.duration || 0), marksOf(e).sent || 0, answered || 0, last || 0);
}
function life(e) {
  if (e.kind === "dns" && !isNothing(marksOf(e).answered)) return end(e) - begin(e);
  return isNothing(e.duration) ? null : Math.max(e.duration, end(e) - e.at);
}

// The cells of a row.
const VERBS = {
  dns: "DNS",
  tcp: "TCP",
  tls: "TLS",
  mail: "MAIL",
  udp: "UDP",
  icmp: "ICMP",
  packet: "PKT",
  grpc: "gRPC",
  websocket: "WS",
  kafka: "KAFKA",
  proxy: "PROXY",
};
const verb = (e) => (e.kind === "http" ? e.request.method.slice(0, 8) : VERBS[e.kind] || e.kind.toUpperCase());
function what(e) {
  const host = `${e.host}${port(e)}`;
  if (e.kind === "dns") return [e.host, ` ${e.type}`];
  if (e.kind === "mail") return [host, `  ${e.subject || "(no subject)"} → ${(e.recipients || []).join(", ")}`];
  if (e.kind === "grpc" && e.grpc) return [host, ` ${e.grpc.path}`];
  if (e.request) return [host, e.request.path + (e.request.query ? `?${e.request.query}` : "")];
  if (e.kind === "proxy") return [host, `  ${e.method || ""} ${e.url || ""}`];
  if (e.topic) return [host, `  ${e.topic}`];
  return [host, e.first ? `  ${e.first}` : e.size ? `  ${size(e.size)}` : ""];
}
const presented = (e) => `accepted ${e.accepted.presented}`;
function answer(e) {
  if (e.accepted) return ["err", presented(e)];
  if (e.error) return ["err", e.error.type];
  if (e.outcome === "unrouted") return ["err", "no route"];
  if (e.kind === "tls") return [e.reason === "rejected" ? "ok" : isBad(e) ? "err" : "dim", e.reason];
  if (e.outcome === "blocked") return ["dim", "blocked"];
  if (e.kind === "dns") return answerOfName(e);
  if (e.kind === "grpc" && e.grpc) return [shade(e, e.grpc.status === "OK"), e.grpc.status || "no status"];
  if (e.kind === "websocket" && e.websocket) return answerOfWebSocket(e, e.websocket.close_code);
  if (e.request && !e.response && !e.fault && e.outcome === "routed")
    return ["warn", isNothing(e.duration) ? "still open" : "no response"];
  if (e.response) return [shade(e, e.response.status < 400), `${e.response.status} ${e.response.reason}`.trim()];
  if (e.kind === "mail" || e.kind === "kafka") return ["ok", "taken"];
  if (e.kind === "tcp" && !e.fault) return answerOfBytes(e);
  if (isPacket(e)) return ["dim", "refused"];
  return [e.fault ? "warn" : "dim", e.fault ? "" : e.outcome === "recorded" ? "listed" : e.outcome];
}
const shade = (e, isGood) => (isOut(e) ? "out" : isGood ? "ok" : "warn");
function answerOfName(e) {
  const said = (e.answer || []).join(", ") || e.rcode || "no answer";
  return [e.fault || e.rcode !== "NOERROR" ? "warn" : "dim", said];
}
function answerOfWebSocket(e, code) {
  if (isNothing(code)) return [shade(e, true), `open, ${plural((e.messages || []).length, "message")}`];
  return [shade(e, code === 1000), `closed ${code}`];
}
function answerOfBytes(e) {
  const cls = isOut(e) ? "out" : e.outcome === "routed" ? "ok" : "dim";
  const to = e.between ? `to ${e.between} ` : "";
  if (e.sent || e.received) return [cls, `${to}${size(e.sent)} ↑ ${size(e.received)} ↓`];
  return [cls, e.outcome === "routed" ? "answered" : firstSentence(e.note) || to.trim() || "listed"];
}
const firstSentence = (text) => (text || "").split(/\. |; /, 1)[0];

// Why an entry fails its test, in some words.
function problem(e) {
  if (e.problem) return e.problem;
  if (e.accepted) return presented(e);
  if (e.error) return `its handler raised ${e.error.type}: ${e.error.text}`;
  if (e.note) return (e.kind === "tls" ? "its TLS handshake failed: " : "") + firstSentence(e.note);
  return (e.near.length && e.near[0].differences[0]) || "no route claims it";
}

// A lookup that led to an attempt, and was none of the test's business, is drawn in its bar, and has a row of its own
// where it is asked for. `lookups` of ledger/timeline.py counts the same.
const isPlain = (e) =>
  e.outcome === "recorded" &&
  e.rcode === "NOERROR" &&
  [e.route, e.fault, e.error, e.note].every(isNothing) &&
  !(e.cnames || []).length;
function foldLookups() {
  const next = new Map();
  for (const e of [...entries].reverse()) {
    const key = `${e.box} ${e.host}`;
    if (e.kind !== "dns") next.set(key, e);
    else if (isPlain(e) && next.has(key)) {
      e.into = next.get(key);
      (e.into.lookups ||= []).push(e);
    }
  }
  for (const e of entries) if (e.lookups) e.lookups.reverse();
}
foldLookups();
