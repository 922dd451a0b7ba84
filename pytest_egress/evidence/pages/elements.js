"use strict";
// Everything from a container is text: it reaches the page by `el` alone, which makes text nodes and attributes of it.
const $ = (id) => document.getElementById(id);
const run = JSON.parse($("run").textContent);

// Characters that hide, turn or split what stands beside them are shown by their numbers.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;
const numbered = (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`;
const visible = (text) => String(text).replace(HIDDEN, (found) => (found === "\r" ? "\\r" : numbered(found)));

const isNothing = (value) => value === null || value === undefined || value === "";
function el(tag, about, ...kids) {
  const it = document.createElement(tag);
  for (const [key, value] of Object.entries(about || {})) {
    if (value === null || value === undefined || (value === false && !key.startsWith("aria-"))) continue;
    if (key === "class") it.className = value;
    else if (key === "on") for (const [name, act] of Object.entries(value)) it.addEventListener(name, act);
    else if (key === "css") for (const [name, said] of Object.entries(value)) it.style.setProperty(name, said);
    else if (key === "src") it.src = value;
    else it.setAttribute(key, value === true && !key.startsWith("aria-") ? "" : visible(value));
  }
  for (const kid of kids.flat(Infinity)) if (!isNothing(kid)) it.append(kid instanceof Node ? kid : visible(kid));
  return it;
}
const span = (cls, text) => el("span", { class: cls }, text);
const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many || `${one}s`}`;
const fact = (count, one, many) =>
  el("span", {}, el("b", {}, count.toLocaleString("en")), ` ${count === 1 ? one : many || `${one}s`}`);
function took(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 0.05) return "< 0.1 ms";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
}
function size(bytes) {
  if (isNothing(bytes)) return "unknown size";
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

// The line that people came for: true only where no attempt was passed through or forwarded.
function reach(hosts) {
  if (!hosts.length) return span("in", "nothing got out");
  const more = hosts.length > 3 ? ` and ${hosts.length - 3} more` : "";
  return span("out", `reached the real upstream: ${hosts.slice(0, 3).join(", ")}${more}`);
}

const THEMES = ["", "light", "dark"];
function nextTheme() {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme || "") + 1) % THEMES.length];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
}
const themeTool = (after = () => {}) =>
  el(
    "button",
    {
      class: "tool",
      type: "button",
      title: "Colours: as the system, light, dark",
      "aria-label": "Colours",
      on: { click: () => (nextTheme(), after()) },
    },
    "◐",
  );
