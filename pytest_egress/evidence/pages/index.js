// The page of a run.
const LEGEND = [
  ["fails", "fails a test"],
  ["routed", "answered"],
  ["fault", "answered by a fault"],
  ["passthrough", "real upstream"],
  ["blocked", "blocked"],
  ["recorded", "listed"],
];
const isFailed = (row) => row.outcome === "failed";
const failed = run.rows.filter(isFailed);
const scheme = (host) => host.slice(0, host.indexOf(" "));
const DEFAULT_PORTS = { https: ":443", http: ":80", dns: ":53" };
function bare(host) {
  const name = host.slice(host.indexOf(" ") + 1);
  const port = DEFAULT_PORTS[scheme(host)];
  return port && name.endsWith(port) ? name.slice(0, -port.length) : name;
}
// Pages of tests beside this one.
const page = (row, n) => `${encodeURIComponent(row.folder)}/timeline.html${n ? `#entry-${n}` : ""}`;
const firstFailing = (row) => (row.unrouted && row.unrouted.length ? row.unrouted[0][2] : undefined);

// The report may have the tests that failed alone, so only a report with others says of how many.
function headline() {
  const [bad, all] = [failed.length, run.rows.length];
  if (!all) return run.sweeps.length ? "No test failed" : "No test used egress";
  if (bad) return bad === all ? `${plural(bad, "test")} failed` : `${bad} of ${plural(all, "test")} failed`;
  if (run.rows.some((row) => row.outcome !== "passed")) return "No test failed";
  return all === 1 ? "The test passed" : `All ${all} tests passed`;
}
function head() {
  const it = $("head");
  it.classList.toggle("failed", failed.length > 0);
  it.append(
    themeTool(),
    el("h1", {}, headline()),
    el(
      "div",
      { class: "facts" },
      reach(run.reached.map(bare)),
      fact(
        run.rows.reduce((sum, row) => sum + row.attempts, 0),
        "attempt",
      ),
      fact(run.destinations, "destination"),
      run.lock ? el("span", {}, el("b", {}, String(run.new)), ` not in ${run.lock}`) : null,
    ),
  );
}

const holds = (text, asked) => asked.every((word) => text.toLowerCase().includes(word));
const searched = (row) =>
  [row.id, row.headline, row.outcome, ...(row.images || []), ...Object.keys(row.hosts)].join(" ");
function tests(asked) {
  const longest = run.rows.reduce((most, row) => Math.max(most, row.duration || 0), 1);
  const list = [...run.rows].sort((a, b) => isFailed(b) - isFailed(a) || b.duration - a.duration);
  const line = (row) =>
    el(
      "tr",
      { class: "t" },
      el(
        "td",
        { class: "id" },
        el("span", { class: `dot ${isFailed(row) ? "failed" : ""}`, role: "img", "aria-label": row.outcome }),
        // A test whose worker crashed has no page.
        row.folder ? el("a", { href: page(row, firstFailing(row)) }, row.id) : row.id,
      ),
      el(
        "td",
        { class: isFailed(row) ? "why" : "soft" },
        row.headline ||
          (isFailed(row) ? row.error || "failed" : row.outcome === "passed" ? "as declared" : row.outcome),
      ),
      el(
        "td",
        { class: "r", "data-noun": row.attempts === 1 ? "attempt" : "attempts" },
        row.attempts.toLocaleString("en"),
      ),
      el("td", { class: "soft opt" }, (row.images || []).join(", ")),
      el(
        "td",
        { class: "time" },
        took(row.duration),
        el("i", { class: "length", css: { width: `${((row.duration || 0) / longest) * 70}px` } }),
      ),
    );
  $("tests").replaceChildren(...list.filter((row) => holds(searched(row), asked)).map(line));
}

function square(host, i) {
  const it = host.tests[i];
  if (!it) return el("td", {}, el("span", {}));
  const said = `${host.host} by ${run.rows[i].id}: ${plural(it.count, "attempt")}, ${it.worst}`;
  const about = { class: it.worst, href: page(run.rows[i], it.entry), title: said, "aria-label": said };
  return el("td", {}, el("a", about, it.count > 999 ? "1k+" : String(it.count)));
}
function matrix(asked) {
  const named = (host) =>
    `${host.host} ${Object.keys(host.tests)
      .map((i) => run.rows[i].id)
      .join(" ")}`;
  const hosts = run.hosts.filter((host) => holds(named(host), asked));
  const columns = run.columns.filter((i) => hosts.some((host) => host.tests[i]));
  const short = (id) => id.slice(id.lastIndexOf("::") + (id.includes("::") ? 2 : 1)).replace(/^test_/, "");
  const column = (i) =>
    el(
      "th",
      { class: "c", scope: "col" },
      el("a", { href: page(run.rows[i]), title: run.rows[i].id }, short(run.rows[i].id)),
    );
  const line = (host) =>
    el(
      "tr",
      {},
      el(
        "th",
        { class: "h", scope: "row" },
        el("i", {}, scheme(host.host)),
        bare(host.host),
        host.new ? el("span", { class: "new", title: `not in ${run.lock || "egress.lock"}` }, "new") : null,
      ),
      columns.map((i) => square(host, i)),
    );
  $("matrix").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", {}), columns.map(column))),
    el("tbody", {}, hosts.map(line)),
  );
  $("hosts").hidden = !run.hosts.length;
  const left = [
    run.destinations - run.hosts.length,
    run.rows.filter((row) => Object.keys(row.hosts).length).length - run.columns.length,
  ];
  $("left").textContent = [
    left[0] > 0 ? `${plural(left[0], "destination")} not shown` : "",
    left[1] > 0 ? `${plural(left[1], "test")} that passed and asked for nothing new not shown` : "",
  ]
    .filter(Boolean)
    .join("; ");
}
function draw() {
  const asked = words($("find").value);
  sweeps(asked);
  tests(asked);
  matrix(asked);
}
$("legend").append(...LEGEND.map(([cls, name]) => el("span", {}, el("i", { class: cls }), name)));
$("find").addEventListener("input", draw);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target === $("find")) return;
  event.preventDefault();
  $("find").focus();
});
head();
draw();
