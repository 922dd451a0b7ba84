// What is copied: pasted into a terminal, a test or an issue, it is text and no more.
function copier(text, label = "copy") {
  const copy = async (event) => {
    event.stopPropagation();
    const copied = typeof text === "function" ? text() : visible(text);
    try {
      await navigator.clipboard.writeText(copied);
    } catch {
      copyBySelection(copied);
    }
    it.textContent = "copied";
    it.classList.add("done");
    setTimeout(() => {
      it.textContent = label;
      it.classList.remove("done");
    }, 1400);
  };
  const it = el("button", { class: "tool", type: "button", "data-copy": "", on: { click: copy } }, label);
  return it;
}
function copyBySelection(text) {
  const area = el("textarea", {});
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// A fence that the text cannot close (CommonMark, section 4.5), and a span of code likewise (section 6.1).
const ticksOver = (text, least) =>
  "`".repeat([...text.matchAll(/`+/g)].reduce((most, [run_]) => Math.max(most, run_.length + 1), least));
function fence(text, kind = "") {
  const shown = visible(text);
  const ticks = ticksOver(shown, 3);
  return `${ticks}${kind}\n${shown}\n${ticks}`;
}
function codeSpan(text) {
  const shown = visible(text).replace(/\s+/g, " ");
  const ticks = ticksOver(shown, 1);
  return ticks === "`" ? `\`${shown}\`` : `${ticks} ${shown} ${ticks}`;
}
function markdown(e) {
  const time = isNothing(life(e)) ? "" : `, ${took(life(e))}`;
  const outcome = [answer(e)[1], e.fault].filter(Boolean).map(codeSpan).join(", ");
  const made = [`${codeSpan(boxes[e.box].name)} in ${codeSpan(run.test.id)}: ${outcome}${time}`, fence(e.text)];
  if (e.note) made.push(fence(e.note));
  for (const near of e.near.slice(0, 2)) {
    made.push(`The nearest route${near.declared_at ? `, declared at ${codeSpan(near.declared_at)}` : ""}:`);
    made.push(fence([near.text, ...near.differences.map((text) => `    ${text}`)].join("\n"), "python"));
  }
  if (e.error) made.push(fence(e.error.traceback));
  if (e.remedy.length) made.push("To declare it:", fence(e.remedy[0][1], "python"));
  if (e.request) made.push("<details><summary>as curl</summary>", fence(curl(e), "sh"), "</details>");
  return `${made.join("\n\n")}\n`;
}

// A word of a POSIX shell. One with control characters, or such as turn text, is in the quotes of bash that escape them.
const utf8 = (character) =>
  [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
function quote(text) {
  const shown = String(text);
  if (!shown.match(HIDDEN) && !/[\t\n]/.test(shown)) return `'${shown.replaceAll("'", "'\\''")}'`;
  const escaped = shown.replace(/[\\']/g, "\\$&").replaceAll("\n", "\\n").replaceAll("\t", "\\t");
  return `$'${escaped.replace(HIDDEN, utf8)}'`;
}
// Fields that curl makes itself, and the coding of a body that is decoded here.
const OWN_FIELDS = /^(host|content-length|content-encoding|connection|accept-encoding|transfer-encoding)$/i;
function curl(e) {
  const { method, url, headers, body: sent } = e.request;
  const made = [`curl --globoff --path-as-is -X ${quote(method)} ${quote(url)}`];
  for (const [name, value] of headers || [])
    if (!OWN_FIELDS.test(name) && !/^[:@]/.test(name))
      made.push(`-H ${quote(value === "" ? `${name};` : `${name}: ${value}`)}`);
  const isWhole = sent && sent.text !== undefined && !isCut(sent);
  if (isWhole) made.push(`--data-raw ${quote(sent.text)}`);
  const lacks = sent && !isWhole ? `\n# without its body of ${size(sent.size)}: see ledger.jsonl` : "";
  return made.join(" \\\n  ") + lacks;
}
