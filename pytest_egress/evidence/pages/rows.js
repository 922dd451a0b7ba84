// The list: attempts, lines of logs and containers in time. Some 45 rows are in the document, whatever their number.
const ROW = 28;
const MARGIN = 12; // rows drawn above and below
const PRINTED = 5000; // rows
let rows = [];
const rowNumbers = new Map(); // of an entry's row
const drawn = new Map();

function refresh() {
  const found = foundEntries();
  const shown = hidesLookups() ? found.filter((e) => !e.into) : found;
  const items = [
    ...shown.map((e) => ({ e, at: e.at, box: e.box })),
    ...foundLogs().map((log) => ({ log, at: log.at, box: log.box })),
  ];
  items.sort((a, b) => (state.grouped ? a.box - b.box : 0) || a.at - b.at);
  rows = [];
  let box = null;
  for (const item of items) {
    if (state.grouped && item.box !== box && boxes[item.box]) rows.push({ of: boxes[item.box] });
    box = item.box;
    rows.push(item);
  }
  rowNumbers.clear();
  rows.forEach((row, i) => row.e && rowNumbers.set(row.e, i));
  $("count").textContent = counted(found);
  $("scroll").setAttribute("aria-rowcount", rows.length);
  $("space").style.height = rows.length ? `${rows.length * ROW + 8}px` : "auto";
  wipe();
  paint();
}
function counted(found) {
  const lookups = found.filter((e) => e.into).length;
  const all = run.lookups || 0;
  const told = (count, of, one) =>
    count === of ? plural(of, one) : `${count.toLocaleString("en")} of ${plural(of, one)}`;
  const attempts = told(found.length - lookups, run.attempts - all, "attempt");
  return hidesLookups() ? attempts : `${attempts}, ${told(lookups, all, "lookup")}`;
}
function wipe() {
  drawn.clear();
  $("space").replaceChildren(
    $("lay") || el("div", { id: "lay", class: "cols lay", role: "presentation", "aria-hidden": "true" }),
  );
}
function paint() {
  const view = $("scroll");
  draw(Math.floor(view.scrollTop / ROW) - MARGIN, Math.ceil((view.scrollTop + view.clientHeight) / ROW) + MARGIN);
}
function draw(from, to) {
  const first = Math.max(0, from);
  const last = Math.min(rows.length, to);
  for (const [i, it] of drawn)
    if (i < first || i >= last) {
      it.remove();
      drawn.delete(i);
    }
  for (let i = first; i < last; i++)
    if (!drawn.has(i)) {
      const it = rowOf(rows[i], i);
      drawn.set(i, it);
      $("space").append(it);
    }
  if (!rows.length && !$("space").querySelector(".none")) $("space").append(empty());
}
function drawAll() {
  wipe();
  draw(0, PRINTED);
  const more = rows.length - PRINTED;
  if (more > 0) $("space").append(el("p", { class: "none" }, `and ${plural(more, "row")} more, in ledger.jsonl`));
}
function empty() {
  const [title, text] = entries.length
    ? ["Nothing matches", "Press Esc to clear the filter."]
    : boxes.length
      ? [
          "No container attempted anything",
          `${boxes.map((box) => box.name).join(", ")} ran, and sent nothing: no DNS question, no connection, no packet.`,
        ]
      : [
          "No container ran in this test",
          "egress answers what containers send: start one with egress.run(image, command).",
        ];
  return el("div", { class: "none" }, el("b", {}, title), text);
}

const cell = (cls, ...kids) => el("div", { class: cls, role: "gridcell" }, ...kids);
function rowOf(row, i) {
  const place = { role: "row", "aria-rowindex": i + 1, css: { top: `${i * ROW}px` } };
  if (row.of) return rowOfContainer(row.of, place);
  return row.log ? rowOfLog(row.log, place) : rowOfEntry(row.e, place);
}
function lifeOfContainer(box) {
  if (isNothing(box.started)) return "";
  return box.ended ? took(box.ended - box.started) : "still runs";
}
function rowOfContainer(box, place) {
  const exit = isNothing(box.exit_code) ? "" : `exit code ${box.exit_code}`;
  const said = [box.image, exit, lifeOfContainer(box)].filter(Boolean).join(" · ");
  const bar = el("i", {});
  if (isNothing(box.started)) bar.hidden = true;
  else put(bar, Math.max(box.started, bounds[0]), box.ended || bounds[1]);
  const name = el("div", { class: "name", role: "rowheader", title: said }, box.name, span("", said));
  return el("div", { ...place, class: "row box" }, span("n"), name, span("ms"), el("div", { class: "fall" }, bar));
}
function rowOfLog(log, place) {
  const dot = put(el("i", {}), log.at, log.at);
  const name = el("div", { class: "name", role: "gridcell", title: log.text }, log.text);
  return el(
    "div",
    { ...place, class: `row log ${log.stream === "stderr" ? "stderr" : ""}` },
    span("n"),
    span("verb", "log"),
    name,
    el("div", { class: "fall" }, dot),
  );
}
function sentence(e, said) {
  const time = isNothing(life(e)) ? "" : `, took ${took(life(e))}`;
  return `${e.n}: ${e.text}, ${[said, e.fault].filter(Boolean).join(", ")}${isBad(e) ? ", fails the test" : ""}, at ${at(e.at)}${time}`;
}
function rowOfEntry(e, place) {
  const [host, path] = what(e);
  const [cls, said] = answer(e);
  const about = {
    ...place,
    class: ["row", isBad(e) && "bad", isQuiet(e) && "quiet", state.pick === e && "pick"].filter(Boolean).join(" "),
    id: `entry-${e.n}`,
    "aria-selected": state.pick === e,
    "aria-label": sentence(e, said),
    on: { click: () => choose(e) },
  };
  const name = cell("name", span("host", host), span("path", path));
  name.title = visible(e.text);
  const tag = e.fault ? el("span", { class: "tag", title: e.fault }, `${e.fault.split("(", 1)[0]}()`) : null;
  return el(
    "div",
    about,
    cell("n", String(e.n)),
    cell("verb", verb(e)),
    name,
    cell("res", said ? span(cls, said) : null, tag),
    cell("ms", took(life(e))),
    fall(e),
  );
}

// The chosen entry.
function choose(e, scroll = false) {
  const before = state.pick;
  state.pick = e;
  for (const each of [before, e]) {
    const it = each && $(`entry-${each.n}`);
    if (it) it.classList.toggle("pick", each === e);
    if (it) it.setAttribute("aria-selected", each === e);
  }
  $("side").hidden = !e;
  $("main").classList.toggle("open", !!e);
  if (e) details(e);
  if (e) $("scroll").setAttribute("aria-activedescendant", `entry-${e.n}`);
  else $("scroll").removeAttribute("aria-activedescendant");
  history.replaceState(null, "", e ? `#entry-${e.n}` : location.pathname + location.search);
  if (!before !== !e) resized();
  if (e && scroll) reveal(e);
}
function reveal(e) {
  const i = rowNumbers.get(e);
  if (i === undefined) return;
  const view = $("scroll");
  const y = i * ROW;
  if (y < view.scrollTop + ROW) view.scrollTop = y - ROW;
  else if (y + 2 * ROW > view.scrollTop + view.clientHeight) view.scrollTop = y + 2 * ROW - view.clientHeight;
  paint();
}
function step(by, holds = () => true) {
  const list = rows.filter((row) => row.e && holds(row.e)).map((row) => row.e);
  if (!list.length) return;
  const here = rowNumbers.get(state.pick) ?? -1;
  const next =
    by > 0 ? list.find((e) => rowNumbers.get(e) > here) : list.findLast((e) => here < 0 || rowNumbers.get(e) < here);
  choose(next || list[by > 0 ? list.length - 1 : 0], true);
}
