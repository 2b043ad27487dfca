// Elements without markup in strings: nothing that comes from outside can become code.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child);
  }
  return node;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Replaces the content only when its data changed, so that focus and selection stay where they are.
export function keep(node, data, build) {
  const text = JSON.stringify(data);
  if (node.shown === text) return;
  node.shown = text;
  node.replaceChildren(...[build(data)].flat(Infinity).filter((child) => child !== null && child !== false));
}

export function link(address, ...children) {
  const safe = /^(https?:\/\/|\/|#)/i.test(address || "");
  if (!safe) return h("span", {}, ...children);
  const outside = /^https?:/i.test(address);
  return h("a", { href: address, ...(outside ? { target: "_blank", rel: "noopener noreferrer" } : {}) }, ...children);
}

// A sentence of the server, whose commands stand in `these`.
export const prose = (text) => String(text).split("`").map((part, n) => (n % 2 ? h("code", {}, part) : part));

// `name` is what the region is called by screen readers; it scrolls by keyboard when it is wide.
export function table(name, heads, rows) {
  return h("div", { class: "scroll", role: "region", "aria-label": name, tabindex: 0 },
    h("table", {},
      h("caption", { class: "hidden" }, name),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, n) =>
        n === 0 ? h("th", { scope: "row" }, cell) : h("td", {}, cell)))))));
}

export const percent = (value, digits = 1) =>
  value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)}\u00a0%`;
export const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : Number(value).toFixed(digits);
export const whole = (value) => (value === null || value === undefined ? "–" : Number(value).toLocaleString("en"));
export const count = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;
export const interval = (pair) => (pair ? `${percent(pair[0])} to ${percent(pair[1])}` : "–");
export const moment = (at) => new Date(1000 * at).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function answer(prediction) {
  if (prediction === null) return "no prediction";
  if (Array.isArray(prediction)) return prediction.join(", ") || "(none)";
  if (typeof prediction === "object") {
    return Object.entries(prediction).map(([name, count]) => `${count} ${name}`).join(", ") || "no objects";
  }
  return prediction;
}
