// Keys, links to this page, and its beginning.
const HELP = [
  ["j, ↓ / k, ↑", "next, previous attempt"],
  ["n / p", "next, previous attempt that fails the test"],
  ["Enter / Esc", "open, close the details; Esc also clears the filter"],
  ["/", "filter"],
  ["g / l / d / s", "by container / lines of logs / DNS lookups / squeeze idle time"],
  ["+ / − / 0", "zoom at the attempt, out, all; or drag over the strip"],
  ["c", "copy the line that declares the attempt"],
  ["?", "this"],
];
const FILTERS = [
  ["stripe charge", "both words, anywhere in it: URL, headers, bodies, notes"],
  ["-telemetry", "not that"],
  ["host: container: method:", "contain, contain, equal"],
  ["status:5xx status:NOT_FOUND", "of HTTP or gRPC"],
  ["outcome:unrouted", "routed, passthrough, unrouted, blocked, recorded"],
  ["kind:dns", "http, grpc, websocket, tcp, tls, mail, kafka, proxy, udp, icmp"],
  ["fault:reset slow:500 n:17", "answered by a fault; took 500 ms or more; its number"],
];
const LEGEND = [
  ["k-dns", "DNS"],
  ["k-conn", "connected"],
  ["k-tls", "TLS handshake"],
  ["k-req", "request"],
  ["k-call", "handler"],
  ["k-res", "response"],
  ["k-out", "real upstream"],
  ["k-fault", "fault"],
  ["k-bad", "fails the test"],
];
function help() {
  const it = $("keys");
  if (it.open) {
    it.close();
    return;
  }
  const list = (of) =>
    el(
      "table",
      {},
      el(
        "tbody",
        {},
        of.map(([name, value]) => el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, value))),
      ),
    );
  const close = el("button", { class: "tool", type: "button", on: { click: () => it.close() } }, "close");
  it.replaceChildren(el("h2", {}, "Keys"), list(HELP), el("h2", {}, "Filters"), list(FILTERS), close);
  it.showModal();
}
function enter() {
  if (!state.pick) step(1);
  else if ($("side").hidden) choose(state.pick);
  else $("side").focus();
}
function leave() {
  if (!state.pick) clear();
  else choose(null);
  $("scroll").focus();
}
function copyRemedy() {
  const it = $("side").querySelector(".code [data-copy]") || $("head").querySelector("[data-copy]");
  if (it) it.click();
}
const KEYS = new Map([
  ["j", () => step(1)],
  ["ArrowDown", () => step(1)],
  ["k", () => step(-1)],
  ["ArrowUp", () => step(-1)],
  ["n", () => step(1, isBad)],
  ["p", () => step(-1, isBad)],
  ["/", () => $("find").focus()],
  ["?", help],
  ["g", () => toggle("grouped")],
  ["l", () => toggle("logs")],
  ["d", () => toggle("lookups")],
  ["s", () => toggle("squeezed")],
  ["+", () => scale(0.4)],
  ["=", () => scale(0.4)],
  ["-", () => scale(2.5)],
  ["0", () => zoom(null)],
  ["Enter", enter],
  ["Escape", leave],
  ["c", copyRemedy],
]);
function pressedInFilter(event) {
  if (event.key === "Escape") {
    clear();
    $("scroll").focus();
  } else if (event.key === "Enter" || event.key === "ArrowDown") {
    event.preventDefault();
    $("scroll").focus();
    step(1);
  }
}
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (event.target === $("find")) return pressedInFilter(event);
  if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
  if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target.closest("#side, header")) return;
  const act = KEYS.get(event.key);
  if (!act) return;
  event.preventDefault();
  act();
}

// #entry-17 and #find=stripe.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
function follow() {
  const [, name, value] = /^#(entry-|find=)(.+)$/s.exec(location.hash) || [];
  if (name === "find=") search(decoded(value));
  if (name !== "entry-") return;
  const e = byNumber.get(Number(value));
  if (!e) {
    $("count").textContent = `entry ${visible(value)} is in ledger.jsonl alone`;
    return;
  }
  if (e.into && !state.lookups) toggle("lookups");
  if (!rowNumbers.has(e)) clear();
  choose(e, true);
}
function resized() {
  $("list").style.setProperty("--sb", `${$("scroll").offsetWidth - $("scroll").clientWidth}px`);
  axis();
  overview();
  paint();
}
function listen() {
  let wait = 0;
  document.addEventListener("keydown", pressed);
  $("find").addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => search($("find").value), entries.length > 3000 ? 160 : 30);
  });
  $("scroll").addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
  addEventListener("resize", resized);
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", drawAll);
  addEventListener("afterprint", () => (wipe(), resized()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", overview);
  brushing();
}
function start() {
  const ticks = [el("i", { class: "up" }), el("i", { class: "down" }), "messages up, down"];
  $("legend").append(
    ...LEGEND.map(([cls, name]) => el("span", {}, el("i", { class: cls }), name)),
    el("span", {}, ticks),
  );
  document.body.classList.toggle("bare", !entries.length && !logs.length);
  if (boxes.length < 2) state.grouped = boxes.length > 0;
  build();
  head();
  chips();
  refresh();
  resized();
  listen();
  if (location.hash) follow();
  else if (entries.filter(isBad).length === 1) choose(entries.find(isBad), true);
}
start();
