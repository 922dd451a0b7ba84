// The details of one entry.
const block = (name, tools, ...kids) => el("section", {}, el("h3", {}, name, tools), ...kids);
const table = (pairs) =>
  el(
    "table",
    {},
    el(
      "tbody",
      {},
      pairs
        .filter(([, value]) => !isNothing(value))
        .map(([name, value]) =>
          el("tr", {}, el("th", { scope: "row", title: name }, name), el("td", { class: "mono" }, value)),
        ),
    ),
  );
const code = (text) => el("div", { class: "code" }, text, copier(text));
const pairs = (list) => (list || []).map(([name, value]) => `${name}: ${value}`).join("\n");

function details(e) {
  const side = $("side");
  side.replaceChildren(
    ...[
      title(e),
      reasons(e),
      e.error &&
        block(
          "Traceback of the handler",
          copier(e.error.traceback),
          el("pre", { class: "body", tabindex: "0" }, e.error.traceback),
        ),
      timing(e),
      e.grpc && gRPC(e.grpc),
      e.messages && e.messages.length && messages(e),
      ...(e.request ? request(e) : []),
      ...(e.response ? response(e.response) : []),
      e.kind === "mail" && mail(e),
      e.kind === "kafka" && record(e),
      e.kind === "proxy" && proxied(e),
      e.kind === "dns" && lookup(e),
      e.body &&
        body(
          e.kind === "mail"
            ? "Message"
            : e.kind === "tcp"
              ? "Bytes from the container"
              : e.kind === "kafka"
                ? "Value"
                : "First bytes",
          e,
        ),
      route(e),
      wire(e),
    ].filter(Boolean),
  );
  side.scrollTop = 0;
}
function title(e) {
  const time = isNothing(life(e)) ? "" : `, took ${took(life(e))}`;
  const close = {
    class: "tool close",
    type: "button",
    "aria-label": "Close details",
    on: { click: () => choose(null) },
  };
  return el(
    "div",
    { class: "hd" },
    el("h2", {}, e.text),
    el("p", {}, `entry ${e.n} of ${boxes[e.box].name}, at ${at(e.at)}${time}`),
    el(
      "div",
      { class: "tools" },
      copier(() => markdown(e), "copy for an issue"),
      el("button", close, "✕"),
    ),
  );
}

// Why it fails, or what else is to say of it.
function reasons(e) {
  const made = [];
  const say = (text, isRed) => made.push(el("p", { class: `note${isRed ? " bad" : ""}` }, text));
  if (isBad(e) && !e.note && !e.near.length && !e.error && !e.accepted) say(problem(e), true);
  if (e.note) say(e.note, isBad(e));
  if (e.accepted) say(acceptance(e.accepted), true);
  if (isOut(e)) say("The real upstream was reached.", false);
  e.near.slice(0, 2).forEach((near) => made.push(...nearest(near, made.length)));
  if (e.near.length > 2) made.push(el("p", { class: "dim" }, `and ${e.near.length - 2} more that are as near`));
  for (const [name, text] of e.remedy) made.push(el("p", { class: "dim label" }, `${name}:`), code(text));
  return made.length ? block(isBad(e) ? "Why it fails the test" : "Note", null, made) : null;
}
const acceptance = ({ presented, library, route }) =>
  `It was presented ${presented}${library ? `, to a client of ${library},` : ""} and sent a request all the same.${route ? ` Presented by ${route}.` : ""}`;
// "path: '/v1/refunds' is not '/v1/charges'" as three cells; another sentence is one.
function differenceCells(text) {
  const colon = text.indexOf(": ");
  const is = text.indexOf(" is not ", colon);
  return colon < 0 || is < 0 ? [text] : [text.slice(0, colon), text.slice(colon + 2, is), text.slice(is + 8)];
}
function nearest(near, isMore) {
  const place = near.declared_at ? span("dim", `  declared at ${near.declared_at}`) : null;
  const name = el("div", { class: `mono near${isMore ? " more" : ""}` }, "nearest route: ", near.text, place);
  if (!near.differences.length) return [name];
  const heads = ["field", "it sent", "the route takes"].map((each) => el("th", { scope: "col" }, each));
  const line = ([field, was, want]) =>
    want === undefined
      ? el("tr", {}, el("td", { class: "mono was", colspan: "3" }, field))
      : el(
          "tr",
          {},
          el("th", { scope: "row" }, field),
          el("td", { class: "mono was" }, was),
          el("td", { class: "mono want" }, want),
        );
  const lines = near.differences.map((text) => line(differenceCells(text)));
  return [name, el("table", { class: "diff" }, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, lines))];
}

function timing(e) {
  const made = parts(e);
  if (!made.length) return null;
  const low = Math.min(...made.map(([, , from]) => from));
  const high = Math.max(...made.map(([, , , to]) => to), low + 0.01);
  const it = el("div", { class: "parts" });
  for (const [cls, name, from, to] of made) {
    const bar = el("i", { class: shadeOf(e, cls) });
    bar.style.left = `${((from - low) / (high - low)) * 100}%`;
    bar.style.width = `${((to - from) / (high - low)) * 100}%`;
    it.append(el("span", {}, name), el("div", { class: "track" }, bar), span("ms", took(to - from)));
  }
  it.append(el("div", { class: "total" }, span("", "first to last"), span("", took(high - low))));
  return block("Time", null, it);
}

// What each protocol has.
const gRPC = (call) =>
  block(
    "gRPC",
    null,
    table([
      ["method", call.path],
      ["status", call.status],
      ["details", call.details],
      ["deadline", call.timeout],
      ["metadata", pairs(call.metadata)],
      ["trailers", pairs(call.trailing_metadata)],
    ]),
  );
function fields(headers, trailers) {
  const all = [...(headers || []), ...(trailers || []).map(([name, value]) => [`${name} (trailer)`, value])];
  return all.length ? table(all) : el("p", { class: "dim" }, "no fields");
}
const request = (e) => [
  block(
    "Request",
    copier(() => curl(e), "copy as curl"),
    fields(e.request.headers, e.request.trailers),
  ),
  e.request.body && body("Request body", e.request),
];
const response = (it) => [
  block(`Response ${it.status} ${it.reason}`, null, fields(it.headers, it.trailers)),
  it.body && body("Response body", it),
];
const mail = (e) =>
  block(
    "Mail",
    null,
    table([
      ["from", `<${e.sender}>`],
      ["to", (e.recipients || []).join(", ")],
      ["subject", e.subject],
      ["login", e.user],
      ["parts", (e.parts || []).join(", ")],
    ]),
  );
const lookup = (e) =>
  block(
    "DNS",
    null,
    table([
      ["question", `${e.host} ${e.type}`],
      ["answer", (e.answer || []).join("\n") || "none"],
      ["code", e.rcode],
      ["CNAMEs", (e.cnames || []).join(" → ")],
      ["fault", e.fault],
    ]),
  );
const record = (e) =>
  block(
    "Kafka",
    null,
    table([
      ["topic", e.topic],
      ["key", e.key],
      ["partition", String(e.partition ?? "")],
      ["offset", String(e.offset ?? "")],
      ["headers", pairs(e.headers)],
      ["client", e.client_id],
      ["login", e.user],
    ]),
  );
const proxied = (e) =>
  block(
    "Proxy",
    null,
    table([["asked for", `${e.method || ""} ${e.url || ""}`], ["login", e.user], ...(e.headers || [])]),
  );
function route(e) {
  const it = routeOf(e);
  if (!it) return null;
  const calls = entries.filter(
    (each) => each.route === e.route && each.outcome === "routed" && each.kind !== "dns",
  ).length;
  const said = run.left_out ? "" : `${calls}${it.times ? ` of ${it.times}` : ""}`;
  return block(
    "Route",
    null,
    el("pre", { class: "code" }, it.text),
    table([
      ["declared at", it.declared_at],
      ["handler", e.handler],
      ["scope", it.scope],
      ["calls in this test", said],
      ["answered by", e.fault],
    ]),
  );
}
function wire(e) {
  const it = connectionOf(e) || {};
  const tls = it.tls || e.tls;
  const box = boxes[e.box];
  const dialled = [e.address || it.address, e.port].filter((each) => !isNothing(each)).join(" port ");
  return block(
    "Connection",
    null,
    table([
      ["number", it.id && `${it.id}${it.requests ? `, ${plural(it.requests, "request")} on it` : ""}`],
      ["dialled", dialled],
      ["through the proxy", e.through],
      ["server name (SNI)", e.sni || it.sni],
      ["protocol", e.request && `HTTP/${e.request.http_version}`],
      ["TLS", tls && [tls.version, tls.cipher, tls.alpn && `ALPN ${tls.alpn}`].filter(Boolean).join(", ")],
      ["client's TLS library", it.library || e.library],
      ["presented", it.presented],
      ["client certificate", tls && tls.client_certificate],
      ["client's port", it.client && String(it.client[1])],
      ["container", [box.name, box.image].filter(Boolean).join(", ")],
    ]),
  );
}

const MESSAGES = { http: "Pieces of the response", tcp: "Bytes, as read and sent" };
const AT_ONCE = 200; // messages
function messages(e) {
  const all = e.messages;
  const list = el("tbody", {});
  const line = (it) =>
    el(
      "tr",
      { class: it.from_client ? "up" : "down" },
      el("td", {}, at(it.at)),
      el("td", {}, it.from_client ? "↑ container" : "↓ test"),
      el("td", {}, it.text),
      el("td", {}, size(it.size)),
    );
  const more = (from) => {
    list.append(...all.slice(from, from + AT_ONCE).map(line));
    const left = all.length - from - AT_ONCE;
    if (left <= 0) return;
    const press = (event) => {
      event.currentTarget.closest("tr").remove();
      more(from + AT_ONCE);
    };
    list.append(
      el(
        "tr",
        {},
        el(
          "td",
          { colspan: "4" },
          el("button", { class: "tool", type: "button", on: { click: press } }, `${left} more`),
        ),
      ),
    );
  };
  more(0);
  const ups = all.filter((it) => it.from_client).length;
  const lost = e.unkept ? `, ${e.unkept} not kept` : "";
  return block(
    `${MESSAGES[e.kind] || "Messages"} · ${ups} up, ${all.length - ups} down${lost}`,
    null,
    el("table", { class: "msgs", "aria-label": "Messages" }, list),
  );
}

// Bodies: as what they are, as text, and as bytes.
const IMAGE = /^image\/(png|jpeg|gif|webp|avif|svg\+xml)$/;
const TREE_KEYS = 500;
const HEX_BYTES = 8192;
const isCut = (it) => !isNothing(it.cut);
const bytesOf = (it) =>
  it.text === undefined
    ? Uint8Array.from(atob(it.base64 || ""), (one) => one.charCodeAt(0))
    : new TextEncoder().encode(it.text);
function base64Of(it) {
  if (it.text === undefined) return it.base64;
  const bytes = bytesOf(it);
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(binary);
}
function parsed(text) {
  if (text === undefined || !/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
function views(of) {
  const it = of.body;
  const type = (of.type || "").split(";")[0].trim().toLowerCase();
  const made = [];
  const value = parsed(it.text);
  if (value !== undefined) made.push(["tree", () => el("div", { class: "tree" }, tree(value, null, 0))]);
  if (type === "application/x-www-form-urlencoded" && it.text !== undefined)
    made.push(["form", () => table([...new URLSearchParams(it.text)])]);
  if (IMAGE.test(type) && !isCut(it))
    made.push([
      "image",
      () => el("img", { alt: `${type}, ${size(it.size)}`, src: `data:${type};base64,${base64Of(it)}` }),
    ]);
  if (it.text !== undefined) made.push(["text", () => el("pre", {}, it.text.replaceAll("\r\n", "\n"))]);
  made.push(["hex", () => el("pre", {}, hex(bytesOf(it)))]);
  return made;
}
function body(name, of) {
  const it = of.body;
  const cut = isCut(it) ? `, the first ${size(it.cut)} shown` : "";
  const heading = `${name} · ${size(it.size)}${cut}${it.coding ? `, sent as ${it.coding}` : ""}`;
  if (!it.cut && isCut(it))
    return block(heading, null, el("p", { class: "dim" }, "not kept: the bodies of a test have 4 MiB"));
  if (it.text === undefined && isNothing(it.base64)) return block(heading, null, el("p", { class: "dim" }, "not kept"));
  const made = views(of);
  const shown = el("div", { class: "body", tabindex: "0" });
  const tabs = el("span", { class: "seg", role: "group", "aria-label": `${name} as` });
  const show = (i) => {
    shown.replaceChildren(made[i][1]());
    [...tabs.children].forEach((tab, j) => tab.setAttribute("aria-pressed", i === j));
  };
  made.forEach(([label_], i) => tabs.append(el("button", { type: "button", on: { click: () => show(i) } }, label_)));
  show(0);
  return block(heading, tabs, shown);
}
function tree(value, key, depth) {
  const name = key === null ? null : [span("key", typeof key === "number" ? String(key) : JSON.stringify(key)), ": "];
  if (value === null || typeof value !== "object") {
    const cls = typeof value === "string" ? "s" : typeof value === "number" ? "num" : "lit";
    return el("div", {}, name, span(cls, JSON.stringify(value)));
  }
  const keys = Array.isArray(value) ? [...value.keys()] : Object.keys(value);
  const [first, last] = Array.isArray(value) ? "[]" : "{}";
  const count = keys.length ? ` ${plural(keys.length, Array.isArray(value) ? "item" : "key")} ` : "";
  const it = el(
    "details",
    { open: depth < 2 || (depth < 5 && keys.length < 4) },
    el("summary", {}, name, span("dim", `${first}${count}${last}`)),
  );
  const fill = () => {
    if (!it.open || it.childElementCount > 1) return;
    it.append(...keys.slice(0, TREE_KEYS).map((each) => tree(value[each], each, depth + 1)));
    if (keys.length > TREE_KEYS) it.append(el("div", { class: "dim" }, `and ${keys.length - TREE_KEYS} more`));
  };
  it.addEventListener("toggle", fill);
  fill();
  return it;
}
function hex(bytes) {
  const made = [];
  for (let i = 0; i < Math.min(bytes.length, HEX_BYTES); i += 16) {
    const some = [...bytes.subarray(i, i + 16)];
    const numbers = some.map((one) => one.toString(16).padStart(2, "0")).join(" ");
    const letters = some.map((one) => (one > 31 && one < 127 ? String.fromCharCode(one) : "·")).join("");
    made.push(`${i.toString(16).padStart(6, "0")}  ${numbers.padEnd(48)} ${letters}`);
  }
  return made.join("\n") + (bytes.length > HEX_BYTES ? `\n… ${bytes.length - HEX_BYTES} more bytes` : "");
}
