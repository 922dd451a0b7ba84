// What is shown: words, kinds and switches.
const state = {
  words: [],
  kinds: new Set(),
  grouped: true,
  logs: true,
  lookups: false,
  squeezed: true,
  pick: null,
  zoom: null,
};
const isKind = (kind) => (e) => e.kind === kind;
const KINDS = [
  ["bad", "fails the test", isBad],
  ["out", "reached upstream", isOut],
  ["http", "HTTP", isKind("http")],
  ["grpc", "gRPC", isKind("grpc")],
  ["websocket", "WebSocket", isKind("websocket")],
  ["dns", "DNS", isKind("dns")],
  ["tcp", "TCP", isKind("tcp")],
  ["tls", "TLS", isKind("tls")],
  ["mail", "mail", isKind("mail")],
  ["kafka", "Kafka", isKind("kafka")],
  ["proxy", "proxy", isKind("proxy")],
  ["packet", "UDP, ICMP", isPacket],
  ["fault", "faults", (e) => !!e.fault],
];
const statusOf = (e) => String(e.grpc ? e.grpc.status : e.response ? e.response.status : "");
const hasStatus = (e, value) =>
  /^\dxx$/.test(value)
    ? /^\d{3}$/.test(statusOf(e)) && statusOf(e)[0] === value[0]
    : statusOf(e).toLowerCase() === value;
const FIELDS = {
  host: (e, value) => (e.host || "").toLowerCase().includes(value),
  kind: (e, value) => e.kind === value,
  outcome: (e, value) => e.outcome === value,
  container: (e, value) => boxes[e.box].name.toLowerCase().includes(value),
  status: hasStatus,
  method: (e, value) => !!e.request && e.request.method.toLowerCase() === value,
  fault: (e, value) => !!e.fault && e.fault.toLowerCase().includes(value),
  slow: (e, value) => (life(e) || 0) >= Number(value || NaN),
  n: (e, value) => String(e.n) === value,
};
const isField = (word) => /^-?[a-z]+:/.test(word) && Object.hasOwn(FIELDS, word.replace(/^-/, "").split(":", 1)[0]);
// A word as it stands in a line of JSON within a script element.
const asWritten = (word) => JSON.stringify(word).slice(1, -1).replaceAll("<", "\\u003c");
function matcher(word) {
  const not = word.startsWith("-") && word.length > 1;
  const plain = not ? word.slice(1) : word;
  const colon = plain.indexOf(":");
  const written = asWritten(plain);
  const holds = isField(word)
    ? (e) => FIELDS[plain.slice(0, colon)](e, plain.slice(colon + 1))
    : (e) => (e.lower ||= e.line.toLowerCase()).includes(written);
  return not ? (e) => !holds(e) : holds;
}
// Lines of logs have text alone: a word about fields or a kind hides them.
function foundLogs() {
  if (!state.logs || state.kinds.size || state.words.some(isField)) return [];
  const asks = state.words.map((word) => [word.length > 1 && word.startsWith("-"), word.replace(/^-(?=.)/, "")]);
  return logs.filter((log) => asks.every(([not, word]) => log.text.toLowerCase().includes(word) !== not));
}
function foundEntries() {
  const holds = state.words.map(matcher);
  const kinds = KINDS.filter(([key]) => state.kinds.has(key)).map(([, , test]) => test);
  return entries.filter((e) => holds.every((test) => test(e)) && (!kinds.length || kinds.some((test) => test(e))));
}
const hidesLookups = () =>
  !state.lookups && !state.kinds.has("dns") && !state.words.some((word) => /^(kind:dns|n:)/.test(word));

function chip(about, name, count) {
  return el(
    "button",
    { type: "button", ...about, class: `chip ${about.class || ""}` },
    name,
    isNothing(count) ? null : el("i", {}, count.toLocaleString("en")),
  );
}
function chips() {
  for (const [key, name, holds] of KINDS) {
    const count = entries.filter(holds).length;
    if (!count) continue;
    const press = (event) => {
      const on = !state.kinds.has(key);
      state.kinds[on ? "add" : "delete"](key);
      event.currentTarget.setAttribute("aria-pressed", on);
      refresh();
    };
    $("chips").append(chip({ class: key, "aria-pressed": "false", on: { click: press } }, name, count));
  }
  const lookups = entries.filter((e) => e.into).length;
  for (const [key, name, count, tip, isCounted] of [
    ["logs", "logs", logs.length, "Lines that containers wrote (l)", true],
    ["lookups", "lookups", lookups, "DNS questions that led to an attempt: they are in its bar (d)", true],
    ["grouped", "by container", boxes.length > 1, "One container after the other, or all by time (g)"],
    ["squeezed", "idle time squeezed", gaps.length, "Where nothing goes on, time is cut short (s)"],
  ])
    if (count)
      $("toggles").append(
        chip(
          { id: key, "aria-pressed": state[key], title: tip, on: { click: () => toggle(key) } },
          name,
          isCounted ? count : null,
        ),
      );
}
function toggle(key) {
  state[key] = !state[key];
  if ($(key)) $(key).setAttribute("aria-pressed", state[key]);
  if (key === "squeezed") build();
  if (key === "squeezed") zoom(null);
  else refresh();
}
function clear() {
  $("find").value = "";
  state.words = [];
  state.kinds.clear();
  for (const each of $("chips").children) each.setAttribute("aria-pressed", "false");
  refresh();
}
function search(text) {
  $("find").value = text;
  state.words = words(text);
  refresh();
}
