// The matrices of the page of a run: which faults of which calls each swept test survives.
const pages = new Map(run.rows.map((row) => [row.id, row]));
const KINDS = { fails: "fails", passes: "routed", says: "says", none: "none" };

function verdict(cell) {
  if (!cell) return el("td", {}, el("span", {}));
  const row = pages.get(cell.id);
  const about = { class: KINDS[cell.kind] || "none", title: cell.cell || null, "aria-label": `${cell.cell} ${cell.letters}` };
  const linked = row && row.folder;
  return el("td", {}, el(linked ? "a" : "b", linked ? { ...about, href: page(row, firstFailing(row)) } : about, cell.letters));
}
function swept(sweep) {
  const line = (row) =>
    el(
      "tr",
      {},
      el("th", { class: row.once ? "h again" : "h", scope: "row", title: row.call }, row.once ? "only once" : row.call),
      row.cells.map(verdict),
    );
  const column = (fault) => el("th", { class: "f", scope: "col" }, fault);
  const letters = ([text, kind, meaning]) =>
    el("span", {}, el("i", { class: KINDS[kind] || "none" }), el("b", {}, text), ` ${meaning}`);
  return el(
    "section",
    {},
    el("p", { class: "id" }, sweep.test),
    el(
      "div",
      { class: "wide" },
      el(
        "table",
        { class: "m" },
        el("thead", {}, el("tr", {}, el("th", {}), sweep.faults.map(column))),
        el("tbody", {}, sweep.rows.map(line)),
      ),
    ),
    el("p", { class: "left" }, [sweep.summary, ...sweep.waits].join("; ")),
    el("div", { class: "legend" }, sweep.legend.map(letters)),
  );
}
function sweeps(asked) {
  const searchedIn = (sweep) => [sweep.test, ...sweep.rows.map((row) => row.call)].join(" ");
  const found = run.sweeps.filter((sweep) => holds(searchedIn(sweep), asked));
  $("sweeps").replaceChildren(...(found.length ? [el("h2", {}, "What fails when a call fails")] : []), ...found.map(swept));
}
