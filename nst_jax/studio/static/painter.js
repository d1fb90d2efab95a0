// Painting on pictures, at their own resolution. Masks: where in the photograph each painting acts. Regions: what
// in the photograph is made of what in each painting. A label for each pixel (0: nobody's) is all the state there is.

import { $, ask, choose, h, pictureOf, say, tried } from "./dom.js";
import { changed, draft } from "./draft.js";
import { bare, COLORS } from "./panel.js";

const LONGEST = 4096; // of a mask: larger photographs share it, as the studio brings masks to size
const UNDOS = 12;
const RGB = COLORS.map((color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
const [BLACK, WHITE] = [[0, 0, 0], [255, 255, 255]];
const code = (data, at) => 65536 * data[at] + 256 * data[at + 1] + data[at + 2];
const PALETTE = new Map([BLACK, ...RGB].map((rgb, label) => [code(rgb, 0), label])); // the labels of the colors in label maps
const REGIONS = 3; // to begin with
const LEAST = 1e-3; // of a picture: a smaller region is none, as for the studio
let sheets = []; // { of, width, height, labels, undo, canvas }: what is painted on
let sheet = null; // the one in hand
let key = ""; // of what the sheets belong to
let isRegions = false;
let regions = []; // their names
const opened = new Map(); // the regions of the colors of others' label maps: the same one on all sheets
let tool = { who: 1, kind: "brush", size: 6, feather: 0 };

function blank(of) {
  const scale = Math.min(1, LONGEST / Math.max(of.width, of.height));
  const [width, height] = [of.width, of.height].map((side) => Math.max(1, Math.round(side * scale)));
  return { of, width, height, labels: new Uint8Array(width * height), undo: [] };
}

/** Paint where each painting acts, or with `regions` what is made of what. */
export async function paint(given = {}) {
  const { content, styles } = draft;
  const wanted = [Boolean(given.regions), content.reference, ...styles.map((one) => one.reference)].join();
  const isNew = wanted !== key;
  key = wanted;
  isRegions = Boolean(given.regions);
  if (isNew) {
    sheets = isRegions ? [content, ...styles].map(blank) : [blank(content)];
    regions = Array.from({ length: REGIONS }, (_, n) => `Region ${n + 1}`);
    opened.clear();
  }
  [sheet] = sheets;
  tool.who = Math.min(tool.who, whose().length);
  build();
  $("painter").showModal();
  place();
  if (isNew) await recall();
  redraw();
}

/** Those that can be painted: the paintings, or the regions. */
const whose = () => (isRegions ? regions : draft.styles);

/** Have on the sheets what was painted in an earlier visit. */
async function recall() {
  if (isRegions) {
    for (const one of sheets) {
      sheet = one;
      if (one.of.labels) await stampColors(pictureOf(one.of.labels, "view.jpg"));
    }
    [sheet] = sheets;
  } else for (const [n, style] of draft.styles.entries()) if (style.mask) await stamp(pictureOf(style.mask, "view.jpg"), n + 1);
}

function redraw() {
  const inHand = sheet;
  sheets.forEach((one) => { sheet = one; draw(); });
  sheet = inHand;
  count();
}

// What is painted

function draw(box = { x: 0, y: 0, w: sheet.width, h: sheet.height }) {
  if (box.w <= 0 || box.h <= 0) return;
  const image = new ImageData(box.w, box.h);
  for (let y = 0; y < box.h; y += 1) {
    for (let x = 0; x < box.w; x += 1) {
      const label = sheet.labels[(box.y + y) * sheet.width + box.x + x];
      if (!label) continue;
      const at = 4 * (y * box.w + x);
      image.data.set(RGB[(label - 1) % RGB.length], at);
      image.data[at + 3] = 255;
    }
  }
  sheet.canvas.getContext("2d").putImageData(image, box.x, box.y);
}

function remember() {
  sheet.undo.push(sheet.labels.slice());
  if (sheet.undo.length > UNDOS) sheet.undo.shift();
}

function change(edit) {
  remember();
  edit(sheet.labels);
  draw();
  count();
}

function dab(x, y, label) {
  const r = (tool.size / 200) * Math.max(sheet.width, sheet.height);
  const [left, top] = [Math.max(0, Math.floor(x - r)), Math.max(0, Math.floor(y - r))];
  const [right, bottom] = [Math.min(sheet.width, Math.ceil(x + r)), Math.min(sheet.height, Math.ceil(y + r))];
  for (let row = top; row < bottom; row += 1) {
    const reach = r * r - (row + 0.5 - y) ** 2;
    if (reach <= 0) continue;
    const half = Math.sqrt(reach);
    const [from, to] = [Math.max(left, Math.round(x - half)), Math.min(right, Math.round(x + half))];
    if (to > from) sheet.labels.fill(label, row * sheet.width + from, row * sheet.width + to);
  }
  return { x: left, y: top, w: right - left, h: bottom - top };
}

function stroke(from, to, label) {
  const step = Math.max(1, (tool.size / 800) * Math.max(sheet.width, sheet.height));
  const count = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / step));
  for (let n = 1; n <= count; n += 1) {
    draw(dab(from.x + ((to.x - from.x) * n) / count, from.y + ((to.y - from.y) * n) / count, label));
  }
}

/** Fill all that hangs together and has one label. */
function flood(labels, x, y, label) {
  const { width, height } = sheet;
  const old = labels[y * width + x];
  if (old === label) return;
  const left = [y * width + x];
  labels[left[0]] = label;
  while (left.length) {
    const at = left.pop();
    const column = at % width;
    const next = [column > 0 && at - 1, column < width - 1 && at + 1, at >= width && at - width, at < width * (height - 1) && at + width];
    for (const one of next) {
      if (one !== false && labels[one] === old) {
        labels[one] = label;
        left.push(one);
      }
    }
  }
}

function shape(labels, { kind, x, y, w, h: tall }) {
  const { width, height } = sheet;
  const [left, top, right, bottom] = [(x * width) / 100, (y * height) / 100, ((x + w) * width) / 100, ((y + tall) * height) / 100];
  const [cx, cy, rx, ry] = [(left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2];
  for (let row = Math.max(0, Math.round(top)); row < Math.min(height, Math.round(bottom)); row += 1) {
    const share = kind === "ellipse" ? Math.sqrt(Math.max(0, 1 - ((row + 0.5 - cy) / ry) ** 2)) : 1;
    const [from, to] = [Math.max(0, Math.round(cx - rx * share)), Math.min(width, Math.round(cx + rx * share))];
    if (to > from) labels.fill(tool.who, row * width + from, row * width + to);
  }
}

/** The pixels of a picture, at the size of the sheet; those between its own are the nearest. */
async function pixels(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const context = new OffscreenCanvas(sheet.width, sheet.height).getContext("2d");
  context.imageSmoothingEnabled = false; // colors between two are no label's
  context.drawImage(image, 0, 0, sheet.width, sheet.height);
  return context.getImageData(0, 0, sheet.width, sheet.height).data;
}

/** The plain colors of a label map, those of most pixels first; one of few pixels is an edge's, between two others. */
function plainColors(data) {
  const counts = new Map();
  for (let n = 0; n < sheet.labels.length; n += 1) counts.set(code(data, 4 * n), (counts.get(code(data, 4 * n)) || 0) + 1);
  const plain = [...counts].filter(([, count]) => count > LEAST * sheet.labels.length);
  return plain.sort(([, one], [, other]) => other - one).map(([color]) => color);
}

/** Paint with the regions that a label map from a file has: ours by its colors, others in any colors. */
async function stampMap(source) {
  const plain = plainColors(await pixels(source));
  const isOurs = plain.every((color) => PALETTE.has(color));
  const further = isOurs ? [] : plain.filter((color) => !opened.has(color));
  if (opened.size + further.length > COLORS.length) throw new Error(`A label map has at most ${COLORS.length} colors, those of the other pictures' maps included.`);
  further.forEach((color) => opened.set(color, opened.size + 1));
  await stampColors(source, isOurs ? PALETTE : opened);
}

/** Paint with the regions of a label map: of the color of each that is the nearest. */
async function stampColors(source, labels = PALETTE) {
  const data = await pixels(source);
  const known = [...labels].map(([color, label]) => [[color >> 16, (color >> 8) & 255, color & 255], label]);
  const far = ([rgb], at) => rgb.reduce((sum, value, c) => sum + (value - data[at + c]) ** 2, 0);
  for (let n = 0; n < sheet.labels.length; n += 1) {
    const isSame = n && [0, 1, 2].every((c) => data[4 * n + c] === data[4 * n + c - 4]); // maps are plain
    const distances = isSame ? [] : known.map((one) => far(one, 4 * n));
    sheet.labels[n] = isSame ? sheet.labels[n - 1] : known[distances.indexOf(Math.min(...distances))][1];
  }
  while (regions.length < RGB.length && sheet.labels.some((label) => label > regions.length)) addRegion();
}

/** Add a mask from a file: where it is white, the label. */
async function stamp(source, label) {
  const data = await pixels(source);
  for (let n = 0; n < sheet.labels.length; n += 1) if (data[4 * n] > 127 && data[4 * n + 3] > 127) sheet.labels[n] = label;
}

/** A picture of the sheet, in which each label has a color. */
function colored(colorOf) {
  const { width, height, labels } = sheet;
  const canvas = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  for (let n = 0; n < labels.length; n += 1) {
    image.data.set(colorOf(labels[n]), 4 * n);
    image.data[4 * n + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** The mask of a label as a PNG: white where it acts, its edge as soft as the feather. */
async function mask(label) {
  const { width, height } = sheet;
  const hard = colored((one) => (one === label ? WHITE : BLACK));
  if (!tool.feather) return hard.convertToBlob({ type: "image/png" });
  const soft = new OffscreenCanvas(width, height);
  const context = soft.getContext("2d");
  context.filter = `blur(${(tool.feather / 100) * Math.max(width, height)}px)`;
  context.drawImage(hard, 0, 0);
  return soft.convertToBlob({ type: "image/png" });
}

/** The label map of the sheet as a PNG: the color of each region, black where nobody painted. */
const labelMap = () => colored((label) => [BLACK, ...RGB][label]).convertToBlob({ type: "image/png" });

// The dialog

function place() {
  sheets.forEach((one) => {
    const area = one.canvas.closest(".area");
    const room = { w: area.clientWidth - 32, h: area.clientHeight - 32 };
    const scale = Math.min(room.w / one.width, room.h / one.height);
    const box = one.canvas.parentElement;
    box.style.width = `${one.width * scale}px`;
    box.style.height = `${one.height * scale}px`;
  });
}

function pointer(event) {
  const box = sheet.canvas.getBoundingClientRect();
  return { x: ((event.clientX - box.left) * sheet.width) / box.width, y: ((event.clientY - box.top) * sheet.height) / box.height };
}

function board(own) {
  own.canvas = h("canvas", { "aria-hidden": "true" });
  own.canvas.width = own.width;
  own.canvas.height = own.height;
  const box = h("div", { class: "sheet" }, h("img", { src: pictureOf(own.of.reference, "view.jpg"), alt: "", draggable: "false" }), own.canvas);
  let last = null;
  box.onpointerdown = (event) => {
    take(own);
    const at = pointer(event);
    if (tool.kind === "fill") {
      change((labels) => flood(labels, Math.floor(Math.min(at.x, sheet.width - 1)), Math.floor(Math.min(at.y, sheet.height - 1)), tool.who));
      return;
    }
    remember();
    box.setPointerCapture(event.pointerId);
    last = at;
    stroke(at, at, tool.kind === "eraser" ? 0 : tool.who);
  };
  box.onpointermove = (event) => {
    if (!last) return;
    const at = pointer(event);
    stroke(last, at, tool.kind === "eraser" ? 0 : tool.who);
    last = at;
  };
  box.onpointerup = () => { last = null; count(); };
  box.onpointercancel = box.onpointerup;
  return h("div", { class: "area" }, box);
}

/** Have another sheet in hand: what is painted by numbers or cleared is on it. */
function take(own) {
  sheet = own;
  const radio = $("painter").querySelector(`[name=sheet][value="${sheets.indexOf(own)}"]`);
  if (radio) radio.checked = true;
  count();
}

function onWhich() {
  const rows = sheets.map((one, n) => h("label", {}, h("input", { type: "radio", name: "sheet", value: String(n), checked: one === sheet, onchange: () => take(one) }), bare(one.of)));
  return h("fieldset", {}, h("legend", {}, "Picture"), h("div", { class: "segments" }, rows));
}

function addRegion() {
  regions.push(`Region ${regions.length + 1}`);
}

/** What stands for one that can be painted: a painting, or a region and its name. */
function shownAs(one, n) {
  if (!isRegions) return [h("img", { src: pictureOf(one.reference, "thumb.jpg"), alt: "" }), h("span", {}, bare(one))];
  const name = h("input", { type: "text", value: one, maxlength: "40", "aria-label": `Name of region ${n + 1}` });
  name.onchange = () => { regions[n] = name.value.trim() || `Region ${n + 1}`; };
  name.onfocus = () => name.closest("label").querySelector("[type=radio]").click();
  return [name];
}

function who() {
  const rows = whose().map((one, n) => {
    const dot = h("b");
    dot.style.background = COLORS[n % COLORS.length];
    const named = isRegions ? { "aria-label": `Paint region ${n + 1}` } : {};
    const input = h("input", { type: "radio", name: "who", class: "hidden", checked: tool.who === n + 1, onchange: () => { tool.who = n + 1; }, ...named });
    return h("label", {}, input, dot, shownAs(one, n), h("small", { "data-label": String(n + 1) }));
  });
  const more = isRegions && regions.length < COLORS.length && h("button", { type: "button", class: "quiet", onclick: () => { addRegion(); rebuild(); } }, "One more region");
  return h("fieldset", { class: "who" }, h("legend", {}, isRegions ? "Region" : "Painting"), rows, more);
}

function areas(one) {
  const sums = new Array(whose().length + 1).fill(0);
  for (const label of one.labels) sums[label] += 1;
  return sums;
}

function count() {
  const sums = areas(sheet);
  $("painter").querySelectorAll("[data-label]").forEach((one) => {
    one.textContent = `${Math.round((100 * sums[Number(one.dataset.label)]) / sheet.labels.length)} %`;
  });
  return sums;
}

function range(id, name, max, value, moved) {
  const input = h("input", { type: "range", id, min: "0", max: String(max), step: "0.5" });
  input.value = value;
  input.oninput = () => moved(Number(input.value));
  return h("div", {}, h("label", { for: id, class: "small" }, name), input);
}

function tools() {
  const kinds = { brush: "Brush", eraser: "Eraser", fill: "Fill" };
  const kind = Object.entries(kinds).map(([name, word]) =>
    h("label", {}, h("input", { type: "radio", name: "tool", checked: tool.kind === name, onchange: () => { tool.kind = name; } }), word));
  return h("fieldset", {}, h("legend", {}, "Tool"), h("div", { class: "segments" }, kind),
    range("brush-size", "Size of the brush", 30, tool.size, (value) => { tool.size = Math.max(0.5, value); }),
    !isRegions && range("feather", "Softness of the edges", 5, tool.feather, (value) => { tool.feather = value; }));
}

function actions() {
  const button = (name, act) => h("button", { type: "button", onclick: act }, name);
  const undo = () => { if (sheet.undo.length) { sheet.labels = sheet.undo.pop(); draw(); count(); } };
  const rest = () => change((labels) => labels.forEach((label, n) => { if (!label) labels[n] = tool.who; }));
  const invert = () => change((labels) => labels.forEach((label, n) => { if (label === tool.who) labels[n] = 0; else if (!label) labels[n] = tool.who; }));
  const clear = () => change((labels) => labels.forEach((label, n) => { if (label === tool.who) labels[n] = 0; }));
  const open = () => choose((file) => tried(async () => {
    remember();
    const source = URL.createObjectURL(file);
    await pixels(source).catch(() => { throw new Error(`${file.name}: the browser cannot show this picture.`); });
    await (isRegions ? stampMap(source) : stamp(source, tool.who));
    if (isRegions) rebuild();
    else redraw();
  }));
  const save = async () => h("a", { href: URL.createObjectURL(await (isRegions ? labelMap() : mask(tool.who))), download: isRegions ? "labels.png" : `mask-${tool.who}.png` }).click();
  return h("div", { class: "row" }, button("Undo", undo), button("Fill the rest", rest), button("Invert", invert), button("Clear", clear), button(isRegions ? "Open label map" : "Open PNG", open), button("Save PNG", save));
}

function numbers() {
  const kind = h("select", { id: "shape-kind" }, h("option", { value: "rectangle" }, "Rectangle"), h("option", { value: "ellipse" }, "Ellipse"));
  const fields = { x: ["Left", 25], y: ["Top", 25], w: ["Width", 50], h: ["Height", 50] };
  const inputs = Object.fromEntries(Object.entries(fields).map(([name, [, value]]) => [name, h("input", { type: "number", id: `shape-${name}`, min: "0", max: "100", value: String(value) })]));
  const add = () => {
    const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, Number(input.value)]));
    change((labels) => shape(labels, { ...values, kind: kind.value }));
  };
  const rows = Object.entries(fields).map(([name, [word]]) => h("label", { for: `shape-${name}` }, `${word}, %`, inputs[name]));
  return h("fieldset", {}, h("legend", {}, "By numbers"), h("div", { class: "numbers" }, h("label", { for: "shape-kind" }, "Shape", kind), h("span"), rows), h("button", { type: "button", onclick: add }, "Add this shape"));
}

function rebuild() {
  build();
  place();
  redraw();
}

function build() {
  const finish = h("button", { type: "button", class: "primary", onclick: () => tried(isRegions ? keepRegions : keepMasks) }, "Use these regions");
  const cancel = h("button", { type: "button", onclick: () => $("painter").close() }, "Cancel");
  const [title, says] = isRegions
    ? ["What is made of what", "Paint a thing in the photograph, and in the painting what it is to be made of, in one color. What is left bare belongs together, too."]
    : ["Where each painting acts", "What nobody has stays as it is in the photograph."];
  const side = h("aside", {},
    h("div", { class: "tools" }, h("h2", {}, title), h("p", { class: "small" }, says), isRegions && onWhich(), who(), tools(), actions(), numbers()),
    h("div", { class: "end" }, finish, cancel));
  $("painter").setAttribute("aria-label", title);
  $("painter").replaceChildren(h("div", { class: "in" }, h("div", { class: "boards" }, sheets.map(board)), side));
  count();
}

async function upload(name, file) {
  return (await ask("POST", `/api/pictures?name=${name}.png`, await file)).reference;
}

async function keepMasks() {
  const sums = count();
  if (sums[0] === sheet.labels.length) {
    draft.styles.forEach((style) => { style.mask = ""; });
  } else {
    const without = draft.styles.find((_, n) => !sums[n + 1]);
    if (without) throw new Error(`Paint where ${without.name} acts, or remove it.`);
    for (const [n, style] of draft.styles.entries()) style.mask = await upload(`mask-${n + 1}`, mask(n + 1));
  }
  if (tool.feather) draft.options.soft_masks = true;
  else delete draft.options.soft_masks;
  [draft.content, ...draft.styles].forEach((one) => { one.labels = ""; });
  kept();
}

/** Keep a label map of each picture that is painted on: a painting that is bare is used whole for every region. */
async function keepRegions() {
  const has = sheets.map((one) => areas(one).map((sum) => sum > LEAST * one.labels.length));
  const isPainted = has.map((labels) => labels.slice(1).some(Boolean));
  if (!isPainted[0]) throw new Error("Paint a region in the photograph first.");
  sheets.slice(1).forEach((one, n) => {
    const lacking = isPainted[n + 1] ? has[0].findIndex((there, label) => there && !has[n + 1][label]) : -1;
    if (lacking === 0) throw new Error(`Leave a part of ${one.of.name} bare: it is for what is bare in the photograph.`);
    if (lacking > 0) throw new Error(`Paint ${regions[lacking - 1]} in ${one.of.name}, too.`);
  });
  for (const [n, one] of sheets.entries()) {
    sheet = one;
    const to = n ? draft.styles[n - 1] : draft.content;
    to.labels = isPainted[n] ? await upload(`regions-${n}`, labelMap()) : "";
  }
  draft.styles.forEach((style) => { style.mask = ""; });
  kept();
}

function kept() {
  $("painter").close();
  changed();
  say("The regions are set.");
}

export function start() {
  window.addEventListener("resize", () => { if ($("painter").open) place(); });
}
