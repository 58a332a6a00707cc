"use strict";
/* What all parts of the page use: elements, numbers as people read them, packed arrays. Text comes
 * from run folders, which may hold anything: it is set as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [event, does] of Object.entries(value)) node.addEventListener(event, does);
    else if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const isNumber = (x) => typeof x === "number" && isFinite(x);

/* --- packed arrays (report/pack.h) --------------------------------------------------- */

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function unpackFloats(base64) {
  const bytes = bytesOf(base64);
  return new Float32Array(bytes.buffer, 0, bytes.length >> 2);
}

/* Varints of up to 53 bits: doubles add them exactly. */
function unpackDeltas(base64) {
  const bytes = bytesOf(base64), out = [];
  let value = 0;
  for (let i = 0; i < bytes.length;) {
    let raw = 0, scale = 1, byte;
    do {
      byte = bytes[i++];
      raw += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127 && i < bytes.length);
    value += raw % 2 ? -(raw + 1) / 2 : raw / 2;
    out.push(value);
  }
  return Float64Array.from(out);
}

/* --- numbers ------------------------------------------------------------------------- */

function number(x, digits) {
  if (!isNumber(x)) return "–";
  const size = Math.abs(x);
  if (x === 0) return "0";
  if (size >= 1e15 || size < 0.9999e-4) { /* what lies below by a float's rounding is 0.0001 */
    const [digit, power] = x.toExponential(2).split("e");
    return Number(digit) + "×10" + [...power.replace("+", "")].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("");
  }
  if (Number.isInteger(x)) return String(x).replace(/\B(?=(\d{3})+$)/g, "\u2009");
  return String(Number(x.toPrecision(digits || 4)));
}

function scaled(x, unit, digits) {
  if (!isNumber(x)) return "–";
  const steps = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const size = Math.abs(x);
  if (size === 0) return "0 " + unit;
  const [step, prefix] = steps.find(([s]) => size >= s * 0.9999) || steps[steps.length - 1];
  return Number((x / step).toPrecision(digits || 3)) + " " + prefix + unit;
}

function seconds(s) {
  if (!isNumber(s)) return "–";
  if (s < 120) return scaled(s, "s");
  const days = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (days) return days + " d " + h + " h";
  if (h) return h + " h " + m + " min";
  return m + " min " + Math.round(s % 60) + " s";
}

const percent = (x) => (isNumber(x) ? Number((100 * x).toPrecision(3)) + " %" : "–");
const moment = (t) => (isNumber(t) ? new Date(1000 * t).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "–");

/* At most `most` round values in [low, high]. */
function ticks(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  if (!(raw > 0)) return [low];
  const ten = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = ten * [1, 2, 5, 10].find((k) => k * ten >= raw * 0.9999);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(Number((k * step).toPrecision(12)));
  return out;
}

function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const every = Math.max(1, Math.ceil((last - first + 1) / most));
  const out = [], fine = last - first <= 2 ? [1, 2, 5] : [1];
  for (let e = first; e <= last; e += every)
    for (const k of fine) {
      const v = k * Math.pow(10, e);
      if (v >= low * 0.999 && v <= high * 1.001) out.push(v);
    }
  return out.length > 1 ? out : [low, high];
}

/* The last i with list[i] <= x, or -1. */
function lastUpTo(list, x) {
  let low = 0, high = list.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (list[mid] <= x) low = mid + 1;
    else high = mid;
  }
  return low - 1;
}

/* --- parts of the page --------------------------------------------------------------- */

/* A section that is there already keeps its place and is filled anew. */
function section(id, title, intro) {
  const head = [el("h2", { id: id + "-title", text: title }), intro && el("p", { class: "intro", text: intro })].filter(Boolean);
  const old = document.getElementById(id);
  if (old) {
    old.replaceChildren(...head);
    return old;
  }
  const node = el("section", { id, "aria-labelledby": id + "-title" }, ...head);
  document.getElementById("main").append(node);
  document.getElementById("nav").append(el("a", { href: "#" + id, text: title }));
  return node;
}

/* columns: [{ name, number: true }]; rows: lists of text, the first a row's header. */
function table(caption, columns, rows, classes) {
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: c.number && "n", text: c.name })));
  const body = rows.map((row, r) => el("tr", { class: classes && classes[r] }, ...row.map((cell, i) =>
    el(i ? "td" : "th", { scope: i ? null : "row", class: columns[i].number && "n", text: cell === null || cell === undefined ? "" : String(cell) }))));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", { class: "data" }, el("caption", { class: "unseen", text: caption }), el("thead", {}, head), el("tbody", {}, ...body)));
}

/* The table behind a picture, made when it is first opened. */
function tableBehind(caption, make) {
  const node = el("details", {}, el("summary", { text: "Table" }));
  node.addEventListener("toggle", () => {
    if (node.open && node.childElementCount === 1) {
      const { columns, rows } = make();
      node.append(table(caption, columns, rows));
    }
  });
  return node;
}

function say(text) {
  document.getElementById("said").textContent = text;
}

function showTip(x, y, ...children) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...children);
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), wide = document.documentElement.clientWidth;
  const left = x + 14 + box.width > wide - 8 ? x - 14 - box.width : x + 14;
  tip.style.left = clamp(left, 8, Math.max(8, wide - box.width - 8)) + "px";
  tip.style.top = clamp(y + 12, 8, Math.max(8, innerHeight - box.height - 8)) + "px";
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}

/* Canvases have no style sheet: colours are read from the page's. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/* Draws when the node has another size: in the next frame, since drawing within the observer's own
 * may change sizes again, of which the browser complains. */
function onResize(node, draw) {
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(node);
}

/* Canvases, which are drawn anew in other colours. */
let themed = [];
function onTheme(node, redraw) {
  themed = themed.filter((t) => t.node.isConnected || t.young);
  themed.push({ node, redraw, young: true });
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = theme === "dark" ? "Light" : "Dark";
  button.setAttribute("aria-label", "Use the " + (theme === "dark" ? "light" : "dark") + " colours");
  for (const t of themed) {
    t.young = false;
    t.redraw();
  }
}

function startTheme() {
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  setTheme(wanted.matches ? "dark" : "light");
  wanted.addEventListener("change", () => setTheme(wanted.matches ? "dark" : "light"));
  let before = null; /* paper is white */
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    setTheme("light");
  });
  addEventListener("afterprint", () => setTheme(before || "light"));
  document.getElementById("theme").addEventListener("click", () =>
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}
