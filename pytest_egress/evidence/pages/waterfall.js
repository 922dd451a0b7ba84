// The waterfall. Time is squeezed where nothing goes on: `place` maps milliseconds to 0..1 of the width.
const bounds = (() => {
  let low = Infinity;
  let high = -Infinity;
  const take = (from, to) => {
    if (from < low) low = from;
    if (to > high) high = to;
  };
  for (const e of entries) take(begin(e), end(e));
  for (const log of logs) take(log.at, log.at);
  if (low > high) return [0, 1000];
  const pad = Math.max((high - low) * 0.01, 0.5);
  return [low - pad, high + pad];
})();

let pieces = []; // [from, to] in milliseconds and in parts of the width, in order
let gaps = []; // those of them that are squeezed
const TICKS = 60;
const MOST_GAPS = 40;

function busyTimes() {
  const busy = [];
  for (const [from, to] of entries.map((e) => [begin(e), end(e)]).sort((a, b) => a[0] - b[0])) {
    const last = busy[busy.length - 1];
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else busy.push([from, to]);
  }
  return busy;
}
function idleTimes() {
  const [low, high] = bounds;
  const busy = busyTimes();
  const total = busy.reduce((sum, [from, to]) => sum + to - from, 0);
  const limit = Math.max(total * 0.05, 2);
  const slack = Math.max(total * 0.006, 0.4);
  const made = [];
  let from = low;
  for (const [a, b] of busy) {
    if (a - from > limit) made.push([from === low ? low : from + slack, a - slack]);
    from = b;
  }
  if (high - from > limit) made.push([from + slack, high]);
  const longest = made.sort((a, b) => b[1] - b[0] - (a[1] - a[0])).slice(0, MOST_GAPS);
  return longest.sort((a, b) => a[0] - b[0]);
}
function build() {
  const [low, high] = bounds;
  gaps = state.squeezed ? idleTimes() : [];
  const idle = gaps.reduce((sum, [a, b]) => sum + b - a, 0);
  const each = gaps.length ? Math.min(0.014, 0.2 / gaps.length) : 0;
  const rest = (1 - each * gaps.length) / Math.max(high - low - idle, 1e-6);
  pieces = [];
  let t = low;
  let u = 0;
  const go = (to, wide, isGap) => {
    if (to <= t) return;
    pieces.push([t, to, u, u + wide, isGap]);
    t = to;
    u += wide;
  };
  for (const [a, b] of gaps) {
    go(a, (a - t) * rest, false);
    go(b, each, true);
  }
  go(high, (high - t) * rest, false);
}
function place(t) {
  if (t <= pieces[0][0]) return 0;
  let a = 0;
  let b = pieces.length - 1;
  while (a < b) {
    const mid = (a + b) >> 1;
    if (pieces[mid][1] < t) a = mid + 1;
    else b = mid;
  }
  const [from, to, u, v] = pieces[a];
  return t >= to ? v : u + ((t - from) / (to - from)) * (v - u);
}
const range = () => state.zoom || [0, 1];
function percent(t) {
  const [low, high] = range();
  return ((place(t) - low) / (high - low)) * 100;
}
function put(it, from, to) {
  const a = percent(from);
  const b = percent(to);
  if (b < -0.5 || a > 100.5) it.hidden = true;
  it.style.left = `${Math.max(a, -1)}%`;
  it.style.width = `${Math.max(Math.min(b, 101) - Math.max(a, -1), 0)}%`;
  return it;
}

// The parts of an entry's time: [class, name, from, to].
function parts(e) {
  const made = [];
  const add = (cls, name, from, to) => {
    if (!isNothing(from) && !isNothing(to) && to >= from) made.push([cls, name, from, to]);
  };
  const over = isNothing(e.duration) ? null : e.at + e.duration;
  if (e.lookups)
    add(
      "k-dns",
      `DNS, ${plural(e.lookups.length, "question")}`,
      begin(e.lookups[0]),
      end(e.lookups[e.lookups.length - 1]),
    );
  const connection = connectionOf(e);
  if (connection && connection.first === e.n) {
    const { opened, hello, secured } = connection;
    add("k-conn", hello ? "connected, ClientHello" : "connected", opened, hello ?? marksOf(e).begun ?? e.at);
    add("k-tls", "TLS handshake", hello, secured ?? (e.kind === "tls" ? (over ?? e.at) : null));
  }
  if (e.kind === "dns") add("k-dns", "answered", begin(e), end(e));
  else if (e.request) partsOfExchange(e, over, add);
  else if (e.kind === "tcp" && isNothing(over)) add("k-open", "open", e.at, bounds[1]);
  else if (e.kind === "tcp")
    add(isBad(e) ? "k-bad" : isOut(e) ? "k-out" : "k-open", e.fault ? "fault" : "open", e.at, over);
  else add(isBad(e) ? "k-bad" : "k-conn", "seen", e.at, over ?? e.at);
  return made;
}
function partsOfExchange(e, over, add) {
  const { begun, whole, called, answered, sent } = marksOf(e);
  add("k-req", "request received", begun ?? e.at, whole ?? called);
  if (!isNothing(called)) {
    const last = Math.min(answered ?? Infinity, over === null ? Infinity : Math.max(over, called));
    add(
      "k-call",
      e.handler ? `handler ${e.handler}` : isOut(e) ? "upstream" : "answer made",
      called,
      Number.isFinite(last) ? last : bounds[1],
    );
  }
  if (over === null) {
    if (isNothing(called)) add("k-open", "no response", whole ?? begun ?? e.at, bounds[1]);
    return;
  }
  if (e.fault && !isNothing(called) && !isNothing(answered) && over > answered)
    add("k-fault", "held back", answered, over);
  const streams = e.messages && e.messages.length;
  add(
    isOut(e) ? "k-out" : streams ? "k-open" : "k-res",
    e.kind === "websocket" ? "open" : "response sent",
    over,
    Math.max(sent ?? over, over),
  );
  if (isNothing(begun) && isNothing(sent)) add("k-res", "until the response", e.at, over);
}
function shadeOf(e, cls) {
  if (isBad(e) && ["k-call", "k-res"].includes(cls)) return "k-bad";
  if (e.outcome === "blocked" && ["k-call", "k-res"].includes(cls)) return "k-conn";
  return e.fault && !e.response && ["k-res", "k-open"].includes(cls) ? "k-fault" : cls;
}
function fall(e) {
  const box = el("div", { class: "fall", role: "presentation" });
  const made = parts(e);
  if (made.length > 1) box.append(put(el("i", { class: "hair" }), made[0][2], made[made.length - 1][3]));
  for (const [cls, name, from, to] of made)
    box.append(put(el("i", { class: shadeOf(e, cls), title: `${name}: ${took(to - from)}` }), from, to));
  if (e.fault && !isNothing(e.duration) && !made.some(([cls]) => cls === "k-fault"))
    box.append(put(el("i", { class: "k-fault", title: e.fault }), e.at + (e.response ? e.duration : 0), end(e)));
  const messages = e.messages || [];
  const every = Math.ceil(messages.length / TICKS);
  for (let i = 0; i < messages.length; i += every) {
    const tick = put(
      el("i", { class: `tick ${messages[i].from_client ? "up" : "down"}` }),
      messages[i].at,
      messages[i].at,
    );
    tick.style.width = "2px";
    box.append(tick);
  }
  return box;
}

// The scale above the bars.
const label = (t, every) =>
  Math.abs(t) >= 1000
    ? `${(t / 1000).toFixed(every >= 100 ? 1 : every >= 10 ? 2 : 3)} s`
    : `${t.toFixed(every < 1 ? 1 : 0)} ms`;
function roundTimes(from, to, wide) {
  const rough = ((to - from) / Math.max(wide, 1)) * 74;
  const ten = 10 ** Math.floor(Math.log10(rough));
  const every = [1, 2, 5, 10].map((factor) => factor * ten).find((some) => some >= rough) || rough;
  const count = Math.min(TICKS, Math.floor((to - from) / every) + 1);
  return [every, [from, ...Array.from({ length: count }, (_, i) => (Math.ceil(from / every) + i) * every)]];
}
function axis() {
  const [low, high] = range();
  const wide = $("axis").clientWidth || 400;
  const x = (t) => (percent(t) / 100) * wide;
  const labels = [];
  const lay = [];
  let free = -Infinity;
  for (const [from, to, u, v, isGap] of pieces) {
    if (v < low || u > high) continue;
    if (isGap) {
      lay.push(put(el("i", { class: "gap", title: `nothing for ${took(to - from)}` }), from, to));
      continue;
    }
    const [every, times] = roundTimes(from, to, x(to) - x(from));
    for (const t of times) {
      if (t > to || x(t) < -2 || x(t) > wide - 34 || x(t) < free) continue;
      free = x(t) + 56;
      labels.push(el("span", { css: { left: `${x(t)}px` } }, label(t, every)));
      lay.push(put(el("i", { class: "grid" }), t, t));
    }
  }
  $("axis").replaceChildren(...labels);
  const cells = Array.from({ length: 5 }, () => el("span", {}));
  $("lay").replaceChildren(...cells, el("div", { class: "fall" }, lay));
}

// All of it in a strip, to zoom by.
const INKS = ["red", "amber", "green", "violet", "slate", "teal"];
function inks() {
  const probe = el("i", { hidden: true });
  document.body.append(probe);
  const ink = Object.fromEntries(
    INKS.map((name) => {
      probe.style.color = `var(--${name}-fill)`;
      return [name, getComputedStyle(probe).color];
    }),
  );
  probe.remove();
  return ink;
}
function inkOf(e) {
  if (isBad(e)) return "red";
  if (isOut(e)) return "violet";
  if (e.fault) return "amber";
  if (e.kind === "dns") return "teal";
  return isQuiet(e) || e.outcome === "blocked" ? "slate" : "green";
}
function overview() {
  const canvas = $("over").firstElementChild;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  const scale = devicePixelRatio || 1;
  canvas.width = w * scale;
  canvas.height = h * scale;
  const pen = canvas.getContext("2d");
  const ink = inks();
  pen.scale(scale, scale);
  pen.fillStyle = ink.slate;
  for (const log of logs) pen.fillRect(place(log.at) * w, h - 4, 1, 3);
  const free = new Array(Math.max(1, Math.floor((h - 12) / 4))).fill(-Infinity);
  for (const e of [...entries.filter((e) => !isBad(e)), ...entries.filter(isBad)]) {
    const x = place(begin(e)) * w;
    const wide = Math.max(2, place(end(e)) * w - x);
    let lane = free.findIndex((until) => until <= x);
    if (lane < 0) lane = e.i % free.length;
    free[lane] = x + wide + 1;
    pen.fillStyle = ink[inkOf(e)];
    pen.fillRect(x, 4 + lane * 4, wide, 3);
  }
  const brush = $("brush");
  brush.hidden = !state.zoom;
  if (state.zoom) brush.style.left = `${state.zoom[0] * 100}%`;
  if (state.zoom) brush.style.width = `${(state.zoom[1] - state.zoom[0]) * 100}%`;
}
function zoom(to) {
  state.zoom = to;
  overview();
  wipe();
  axis();
  paint();
}
function scale(by) {
  const [low, high] = range();
  const middle = state.pick ? place(state.pick.at) : (low + high) / 2;
  const wide = (high - low) * by;
  zoom(wide >= 1 ? null : [Math.max(0, middle - wide / 2), Math.min(1, middle + wide / 2)]);
}
function brushing() {
  const over = $("over");
  let from = null;
  const part = (event) => {
    const box = over.getBoundingClientRect();
    return Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width;
  };
  over.addEventListener("pointerdown", (event) => {
    from = part(event);
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = part(event);
    if (Math.abs(to - from) > 0.002) zoom([Math.min(from, to), Math.max(from, to)]);
  });
  for (const name of ["pointerup", "pointercancel"]) over.addEventListener(name, () => (from = null));
  over.addEventListener("dblclick", () => zoom(null));
}
