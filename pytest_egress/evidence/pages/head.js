// The top: the verdict, whether anything got out, what fails the test, and what declares it.
const LISTED = 100; // attempts that fail

function facts() {
  const hosts = new Set(entries.map((e) => e.host)).size;
  return el(
    "div",
    { class: "facts" },
    reach(run.reached),
    fact(run.attempts - (run.lookups || 0), "attempt"),
    run.left_out ? null : fact(hosts, "host"),
    fact((run.containers || []).length, "container"),
    isNothing(run.test.duration) ? null : el("span", {}, el("b", {}, took(run.test.duration)), " in all"),
    run.left_out ? el("span", {}, `${run.left_out.toLocaleString("en")} of them in ledger.jsonl alone`) : null,
    run.logs_left_out ? el("span", {}, `${plural(run.logs_left_out, "line")} of logs not shown`) : null,
  );
}
function failures() {
  const line = (e) => {
    const about = { class: "fail", type: "button", title: problem(e), on: { click: () => choose(e, true) } };
    const text = e.kind === "dns" ? `DNS ${e.text}` : e.text;
    return el("li", {}, el("button", about, span("n", String(e.n)), span("mono", text), span("err", problem(e))));
  };
  const bad = entries.filter(isBad);
  const more = run.failing - Math.min(bad.length, LISTED);
  return el(
    "ul",
    { class: "fails" },
    bad.slice(0, LISTED).map(line),
    more > 0 ? el("li", { class: "more" }, `and ${more.toLocaleString("en")} more`) : null,
  );
}
const card = (heading, tool, ...kids) => el("div", { class: "card" }, el("h2", {}, heading, tool), ...kids);
function cards() {
  const { verdict } = run;
  const paste = (run.paste || []).join("\n");
  const said = verdict && verdict.text ? el("pre", { tabindex: "0" }, verdict.text) : null;
  const folded = said && el("details", {}, el("summary", {}, `${verdict.error}, as pytest prints it`), said);
  const made = [];
  if (run.failing)
    made.push(
      card(`${plural(run.failing, "attempt")} ${run.failing === 1 ? "fails" : "fail"} it`, null, failures(), folded),
    );
  else if (said) made.push(card(span("type", verdict.error), null, said));
  if (paste)
    made.push(
      card(
        run.paste.length > 1 ? "to declare all of it" : "to declare it",
        copier(paste),
        el("pre", { tabindex: "0" }, paste),
      ),
    );
  return made;
}
const isFailed = () => run.test.outcome === "failed";
function headline() {
  if (run.verdict && run.verdict.headline) return run.verdict.headline;
  if (run.failing) return `${plural(run.failing, "attempt")} that no test allows`;
  const answered = run.attempts ? "every attempt was answered as declared" : "no container attempted anything";
  return isFailed() ? `The test failed; ${answered}` : answered[0].toUpperCase() + answered.slice(1);
}
// Names of files beside this one: no other link is made.
const link = (href, text) => (/^(?!\/)[\w.\/-]+$/.test(href) ? el("a", { href }, text) : null);
function head() {
  const it = $("head");
  const [file, ...rest] = run.test.id.split("::");
  const help_ = {
    class: "tool",
    type: "button",
    title: "Keys and filters (?)",
    "aria-label": "Keys and filters",
    on: { click: help },
  };
  const made = cards();
  it.classList.toggle("failed", isFailed());
  it.append(
    el(
      "div",
      { class: "top" },
      el("span", { class: "badge" }, run.test.outcome),
      el("span", { class: "id" }, rest.length ? `${file}::` : file, el("b", {}, rest.join("::"))),
      run.index ? link(run.index, "all tests") : null,
      (run.files || []).map((name) => link(name, name)),
      span("when", run.test.when),
      themeTool(overview),
      el("button", help_, "?"),
    ),
    el("h1", {}, headline()),
    facts(),
  );
  if (made.length) it.append(el("div", { class: `why${made.length === 1 ? " one" : ""}` }, made));
}
