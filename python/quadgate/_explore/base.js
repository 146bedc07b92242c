"use strict";
// Data, selection and drawing that all views share. No library, no request: everything is in this page.

const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("data").textContent);
const T = page.steps;

// An array of any shape, packed as unsigned integers between its least and largest number.
class Packed {
  constructor({ shape, low, high, bits, data }) {
    const text = atob(data);
    const wide = bits === 16;
    const count = wide ? text.length / 2 : text.length;
    this.values = new Float32Array(count);
    const scale = (high - low) / (wide ? 65535 : 255);
    for (let n = 0; n < count; n++) {
      const raw = wide ? text.charCodeAt(2 * n) + 256 * text.charCodeAt(2 * n + 1) : text.charCodeAt(n);
      this.values[n] = low + scale * raw;
    }
    this.low = low;
    this.high = high;
    this.rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
    this.width = shape[shape.length - 1];
  }

  row(n) {
    return this.values.subarray(n * this.width, (n + 1) * this.width);
  }
}

// Arrays are unpacked when they are first needed.
const unpacked = new Map();
function array(packed) {
  if (!unpacked.has(packed)) unpacked.set(packed, new Packed(packed));
  return unpacked.get(packed);
}

const GATES = ["i", "f", "g", "o"];
const NAMES = { h: "h (output)", c: "c (cell)", i: "i (input gate)", f: "f (forget gate)", g: "g (candidate)", o: "o (output gate)" };

// ---------------------------------------------------------------------------------------------------------- selection

const chosen = {
  state: 0, signal: "h", unit: 0, step: T >> 1, order: [], source: -1,
  output: 0, outputStep: page.gradients.steps.length - 1, norm: "dh", from: T >> 1, to: Math.min(T - 1, (T >> 1) + 2), found: [], searched: false,
};
const views = [];
let waiting = false;

function choose(changes) {
  Object.assign(chosen, changes);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const draw of views) draw();
  });
}

const state = () => page.states[chosen.state];
const signal = (name = chosen.signal, at = chosen.state) => array(page.states[at].signals[name]);
const unitCount = () => array(state().signals.h).rows;
const has = (name) => name in state().signals;
const limited = (value, low, high) => Math.max(low, Math.min(high, value));

// The least and the largest of many numbers.
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function moveStep(by) {
  choose({ step: limited(chosen.step + by, 0, T - 1) });
}

function moveUnit(by) {
  const place = chosen.order.indexOf(chosen.unit);
  choose({ unit: chosen.order[limited(place + by, 0, chosen.order.length - 1)], source: -1 });
}

// --------------------------------------------------------------------------------------------------------------- text

// Without the names that objects inherit, such as "constructor".
const VISIBLE = { __proto__: null, " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" };

// Labels are data: they go into the page as text, never as HTML.
function label(step) {
  return page.labels ? page.labels[step] : String(step);
}

// True if labels are longer than a letter, and need space between them.
const wordy = page.labels !== null && page.labels.some((text) => [...text].length > 1);

function visible(text) {
  return text === "" ? "∅" : text in VISIBLE ? VISIBLE[text] : text;
}

function stepName(step) {
  return page.labels ? `step ${step} “${visible(page.labels[step])}”` : `step ${step}`;
}

function number(value, aligned = false) {
  if (!Number.isFinite(value)) return "∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  const text = value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  return aligned ? text : String(Number(text));
}

// Numbers in columns keep their zeros.
const aligned = (value) => number(value, true);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function fillTable(table, heads, rows) {
  const labelled = heads.indexOf("label");
  const cell = (tag, value, n) => element(tag, n === labelled ? { class: "label" } : {}, String(value));
  const head = element("tr", {}, ...heads.map((value, n) => {
    const made = cell("th", value, n);
    made.scope = "col";
    return made;
  }));
  const body = rows.map((row) => element("tr", {}, ...row.map((value, n) => cell("td", value, n))));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

// Tables are filled in only while they are open.
function whenOpen(table, fill) {
  const details = table.closest("details");
  details.addEventListener("toggle", () => details.open && fill());
  return () => details.open && fill();
}

function choices(holder, entries, current, pick) {
  holder.replaceChildren(...entries.map(([value, text]) => {
    const button = element("button", { type: "button", "aria-pressed": String(value === current) }, text);
    button.dataset.value = value;
    button.addEventListener("click", () => pick(value));
    return button;
  }));
}

function press(holder, current) {
  for (const button of holder.children) button.setAttribute("aria-pressed", String(button.dataset.value === current));
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
}

// Labels in a row, each in an element of its own; after a line feed the line ends.
function labelsInto(holder, attributes, pick) {
  holder.replaceChildren(...Array.from({ length: T }, (_, step) => {
    const own = label(step);
    const made = element("span", attributes(step), own === "\n" ? "⏎\n" : visible(own));
    if (own in VISIBLE) made.className = "gap";
    return made;
  }));
  holder.classList.toggle("words", wordy);
  holder.addEventListener("click", (event) => {
    const step = [...holder.children].indexOf(event.target);
    if (step >= 0) pick(step);
  });
}

// Lay a value from -1 to 1, or null for none, behind each label.
function colourLabels(holder, value, at) {
  const spans = holder.children;
  for (let step = 0; step < T; step++) {
    const v = value(step);
    spans[step].style.background = v === null ? "" : colour(v);
    spans[step].style.color = v !== null && Math.abs(v) > 0.6 ? "var(--panel)" : "";
    spans[step].classList.toggle("chosen", step === at);
  }
}

// ------------------------------------------------------------------------------------------------------------- colours

let style = getComputedStyle(document.documentElement);
const css = (name) => style.getPropertyValue(name).trim();
const series = (n) => css(`--s${n % 6}`);
let ends = null;

function readColours() {
  style = getComputedStyle(document.documentElement);
  ends = ["--negative", "--middle", "--positive"].map((name) => css(name).split(",").map(Number));
}
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours();
  images.clear();
  choose({});
});

// Red, green and blue of a value from -1 to 1.
function mixed(value) {
  const share = Math.min(1, Math.abs(value));
  const end = value < 0 ? ends[0] : ends[2];
  return ends[1].map((middle, n) => Math.round(middle + share * (end[n] - middle)));
}

const colour = (value) => `rgb(${mixed(value).join(",")})`;

function ramp(holder, low, high, text, onesided) {
  const from = onesided ? colour(0) : colour(-1);
  const bar = element("span", { class: "ramp" });
  bar.style.background = onesided ? `linear-gradient(to right, ${from}, ${colour(1)})`
    : `linear-gradient(to right, ${from}, ${colour(0)}, ${colour(1)})`;
  holder.replaceChildren(element("span", {}, number(low)), bar, element("span", {}, number(high)), element("span", {}, text));
}

function key(holder, entries) {
  holder.replaceChildren(...entries.map(([text, fill]) => {
    const mark = element("i");
    mark.style.background = fill;
    return element("span", {}, mark, text);
  }));
}

// ------------------------------------------------------------------------------------------------------------- drawing

const LEFT = 46, BOTTOM = 22, RIGHT = 8, TOP = 6;

// Prepare a canvas for the device's pixels; `columns` lie side by side from LEFT to the right edge.
function prepare(canvas, height, columns = T) {
  const width = canvas.clientWidth || 600;
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "12px system-ui, sans-serif";
  ctx.lineJoin = "round";
  const box = { ctx, width, height, left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM, columns };
  box.cell = (box.right - box.left) / columns;
  box.x = (column) => box.left + (column + 0.5) * box.cell;
  canvas.box = box;
  return box;
}

// A round step of about a `parts`-th of a range.
function tick(range, parts) {
  const raw = range / parts || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((n) => n * power >= raw * 0.999);
}

function stepAxis(box, name = (n) => n) {
  const { ctx } = box;
  ctx.fillStyle = css("--soft");
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  const every = Math.max(1, tick(box.columns, Math.max(2, (box.right - box.left) / 90)));
  for (let n = 0; n < box.columns; n += every) ctx.fillText(name(n), box.x(n), box.bottom + 5);
}

// Lines of values over columns, with a scale on the left. `log` values are common logarithms.
function valueAxis(box, low, high, log = false) {
  const { ctx } = box;
  if (!(high > low)) { low -= 0.5; high += 0.5; }
  box.y = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  ctx.lineWidth = 1;
  const every = log ? Math.max(1, tick(high - low, 5)) : tick(high - low, Math.max(2, (box.bottom - box.top) / 40));
  for (let value = Math.ceil(low / every - 1e-9) * every; value <= high + 1e-9; value += every) {
    const y = Math.round(box.y(value)) + 0.5;
    ctx.strokeStyle = css("--line");
    ctx.beginPath();
    ctx.moveTo(box.left, y);
    ctx.lineTo(box.right, y);
    ctx.stroke();
    ctx.fillStyle = css("--soft");
    const shown = Math.abs(value) < every / 1e6 ? 0 : value;
    const text = log && (shown < -3 || shown > 3) ? `1e${shown}` : String(Number((log ? 10 ** shown : shown).toPrecision(6)));
    ctx.fillText(text, box.left - 6, y);
  }
}

function line(box, values, fill, { dash = [], from = 0, skip = () => false } = {}) {
  const { ctx } = box;
  ctx.strokeStyle = fill;
  ctx.lineWidth = 1.6;
  ctx.setLineDash(dash);
  ctx.beginPath();
  let pen = false;
  for (let n = from; n < values.length; n++) {
    if (skip(values[n])) { pen = false; continue; }
    if (pen) ctx.lineTo(box.x(n), box.y(values[n]));
    else ctx.moveTo(box.x(n), box.y(values[n]));
    if (!pen && (n + 1 === values.length || skip(values[n + 1]))) ctx.lineTo(box.x(n) + 2, box.y(values[n]));
    pen = true;
  }
  ctx.stroke();
  ctx.setLineDash([]);
}

// A vertical line at the selected step.
function cursor(box, column = chosen.step) {
  const { ctx } = box;
  ctx.strokeStyle = css("--chosen");
  ctx.lineWidth = 1.5;
  ctx.strokeRect(box.left + column * box.cell, box.top - 1, Math.max(box.cell, 1), box.bottom - box.top + 2);
}

function band(box, from, to) {
  const { ctx } = box;
  ctx.globalAlpha = 0.16;
  ctx.fillStyle = css("--chosen");
  ctx.fillRect(box.left + from * box.cell, box.top, (to - from + 1) * box.cell, box.bottom - box.top);
  ctx.globalAlpha = 1;
}

// Images by name, since only the marks on a map change with the selection.
const images = new Map();
function map(box, name, rows, value) {
  if (!images.has(name)) {
    if (images.size > 24) images.clear();
    const canvas = element("canvas");
    canvas.width = box.columns;
    canvas.height = rows;
    const ctx = canvas.getContext("2d");
    const image = ctx.createImageData(box.columns, rows);
    let at = 0;
    for (let r = 0; r < rows; r++) {
      for (let n = 0; n < box.columns; n++) {
        const [red, green, blue] = mixed(value(r, n));
        image.data.set([red, green, blue, 255], at);
        at += 4;
      }
    }
    ctx.putImageData(image, 0, 0);
    images.set(name, canvas);
  }
  box.ctx.imageSmoothingEnabled = false;
  box.ctx.drawImage(images.get(name), box.left, box.top, box.right - box.left, box.bottom - box.top);
  box.row = (box.bottom - box.top) / rows;
}

function frame(box, row) {
  const { ctx } = box;
  ctx.strokeStyle = css("--chosen");
  ctx.lineWidth = 1.5;
  ctx.strokeRect(box.left - 1, box.top + row * box.row, box.right - box.left + 2, Math.max(box.row, 1));
}

function sideText(box, text) {
  const { ctx } = box;
  ctx.save();
  ctx.translate(13, (box.top + box.bottom) / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillStyle = css("--soft");
  ctx.fillText(text, 0, 0);
  ctx.restore();
}

// Column and row under the pointer.
function place(canvas, event) {
  const { box } = canvas;
  const at = canvas.getBoundingClientRect();
  const column = Math.floor((event.clientX - at.left - box.left) / box.cell);
  return { column: limited(column, 0, box.columns - 1), x: event.clientX - at.left, y: event.clientY - at.top };
}

function rowAt(canvas, y, rows) {
  return limited(Math.floor((y - canvas.box.top) / canvas.box.row), 0, rows - 1);
}

// Arrow keys, Home and End.
function steer(thing, across, along = null) {
  thing.addEventListener("keydown", (event) => {
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [across, -far], ArrowRight: [across, far], Home: [across, -T], End: [across, T],
      ArrowUp: [along, -far], ArrowDown: [along, far] };
    const [move, by] = moves[event.key] || [];
    if (!move) return;
    event.preventDefault();
    move(by);
  });
}

function steerSteps(canvas) {
  steer(canvas, moveStep);
  canvas.addEventListener("click", (event) => choose({ step: place(canvas, event).column }));
}

addEventListener("resize", () => choose({}));
