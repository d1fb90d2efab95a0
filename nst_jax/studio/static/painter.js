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
const [NEAR, CLOSE, PLAIN, COUNTED] = [16, 8, 0.7, 1024]; // of label maps: as in label_maps.py; COUNTED: their longest side
const MOST_COLORS = 1024; // that are looked at, the most frequent ones
let sheets = []; // { of, width, height, labels, colors, undo, canvas }: what is painted on; colors: of another's label map, and their labels
let sheet = null; // the one in hand
let key = ""; // of what the sheets belong to
let isRegions = false;
let regions = []; // their names
let tool = { who: 1, kind: "brush", size: 6, feather: 0 };

function blank(of) {
  const scale = Math.min(1, LONGEST / Math.max(of.width, of.height));
  const [width, height] = [of.width, of.height].map((side) => Math.max(1, Math.round(side * scale)));
  return { of, width, height, labels: new Uint8Array(width * height), colors: new Map(of.colors), undo: [] };
}

const keyOf = () => [isRegions, ...[draft.content, ...draft.styles].map((one) => [one.reference, one.labels, one.mask])].join();

/** Paint where each painting acts, or with `regions` what is made of what. */
export async function paint(given = {}) {
  const { content, styles } = draft;
  isRegions = Boolean(given.regions);
  const isNew = key !== keyOf();
  key = keyOf();
  if (isNew) {
    sheets = isRegions ? [content, ...styles].map(blank) : [blank(content)];
    regions = Array.from({ length: REGIONS }, (_, n) => `Region ${n + 1}`);
    tool.feather = content.feather || 0;
  }
  [sheet] = sheets;
  tool.who = Math.min(tool.who, whose().length);
  build();
  $("painter").showModal();
  place();
  if (!isNew) redraw();
  else {
    await recall();
    rebuild();
  }
}

/** Those that can be painted: the paintings, or the regions. */
const whose = () => (isRegions ? regions : draft.styles);

/** Have on the sheets what was painted in an earlier visit. */
async function recall() {
  const view = (reference) => decoded(pictureOf(reference, "view.jpg"));
  if (isRegions) {
    for (const one of sheets.filter((each) => each.of.labels)) {
      const image = await view(one.of.labels);
      const found = labelsOf(plainColors(image, "The label map"), one);
      stampColors(one, image, { ...found, colors: found.colors.size ? found.colors : one.colors }); // ours may be of another's
    }
    return;
  }
  let soft = 0;
  for (const [n, style] of draft.styles.entries()) {
    if (!style.mask) continue;
    const image = await view(style.mask);
    stamp(sheet, image, n + 1);
    soft = Math.max(soft, softness(image));
  }
  if (draft.options.soft_masks && !draft.content.feather) tool.feather = Math.max(0.5, Math.round(2 * soft) / 2); // of a picture that was brought back
}

/** How soft the edge of a mask is, in percent of its longest side: a blurred step has a gray of sigma / sqrt(pi) across. */
function softness(image) {
  const { width, height } = sheet;
  const data = pixels(image, width, height);
  let [gray, edge] = [0, 0];
  for (let n = 0; n < width * height; n += 1) {
    const value = data[4 * n] / 255;
    if (value > 0.02 && value < 0.98) gray += value * (1 - value); // the rest may be the view's noise
    for (const next of [n % width < width - 1 && n + 1, n + width]) if (next && next < width * height) edge += (value > 0.5) !== (data[4 * next] > 127);
  }
  return edge ? (100 * Math.sqrt(Math.PI) * gray) / edge / Math.max(width, height) : 0;
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

function remember(own = sheet) {
  own.undo.push({ labels: own.labels.slice(), colors: own.colors });
  if (own.undo.length > UNDOS) own.undo.shift();
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

async function decoded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** The pixels of a picture at a size; those between its own are the nearest. */
function pixels(image, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingEnabled = false; // colors between two are no label's
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

const rgbOf = (color) => [color >> 16, (color >> 8) & 255, color & 255];
const isNear = (one, other) => rgbOf(one).every((value, c) => Math.abs(value - rgbOf(other)[c]) <= NEAR);
/** The label of the color that is as good as this one. */
const labelOf = (color, labels) => ([...labels].find(([other]) => isNear(color, other)) || [])[1];

/** The plain colors of a label map, those of most pixels first. What is near a more frequent one is of that one. */
function plainColors(image, name) {
  const scale = Math.min(1, COUNTED / Math.max(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const data = pixels(image, width, height);
  const isFlat = (at, to) => Math.max(Math.abs(data[at] - data[to]), Math.abs(data[at + 1] - data[to + 1]), Math.abs(data[at + 2] - data[to + 2])) <= CLOSE;
  const counts = new Map();
  for (let at = 4 * (width + 1); at < data.length; at += 4) {
    if (isFlat(at, at - 4) && isFlat(at, at - 4 * width)) counts.set(code(data, at), (counts.get(code(data, at)) || 0) + 1);
  }
  const found = []; // a color and its pixels
  for (const [color, count] of [...counts].sort(([, one], [, other]) => other - one).slice(0, MOST_COLORS)) {
    const near = found.find(([other]) => isNear(color, other));
    if (near) near[1] += count;
    else found.push([color, count]);
  }
  const plain = found.filter(([, count]) => count > LEAST * width * height);
  if (plain.reduce((sum, [, count]) => sum + count, 0) < PLAIN * width * height) throw new Error(`${name} is not made of plain colors, as a label map is.`);
  return plain.map(([color]) => color);
}

/** The labels of the colors of a sheet's map: of ours by our colors, else each color as on the other sheets. */
function labelsOf(plain, own) {
  const known = new Map(sheets.flatMap((one) => (one === own ? [] : [...one.colors])));
  const by = (labels) => new Map(plain.map((color) => [color, labelOf(color, labels)]));
  const isWhole = (labels) => plain.every((color) => labelOf(color, labels) !== undefined);
  if (!isWhole(known) && isWhole(PALETTE)) return { labels: by(PALETTE), colors: new Map() };
  const used = [...known.values()];
  const free = COLORS.map((_, n) => n + 1).filter((label) => !used.includes(label));
  const further = plain.filter((color) => !labelOf(color, known));
  if (further.length > free.length) throw new Error(`A label map has at most ${COLORS.length} colors, those of the other pictures' maps included.`);
  further.forEach((color, n) => known.set(color, free[n]));
  return { labels: by(known), colors: by(known) };
}

/** Paint a sheet with the regions of a label map: of the color of each that is the nearest. */
function stampColors(own, image, { labels, colors }) {
  const data = pixels(image, own.width, own.height);
  const known = [...labels].map(([color, label]) => [rgbOf(color), label]);
  const far = ([rgb], at) => rgb.reduce((sum, value, c) => sum + (value - data[at + c]) ** 2, 0);
  for (let n = 0; n < own.labels.length; n += 1) {
    const isSame = n && [0, 1, 2].every((c) => data[4 * n + c] === data[4 * n + c - 4]); // maps are plain
    const distances = isSame ? [] : known.map((one) => far(one, 4 * n));
    own.labels[n] = isSame ? own.labels[n - 1] : known[distances.indexOf(Math.min(...distances))][1];
  }
  while (regions.length < RGB.length && own.labels.some((label) => label > regions.length)) addRegion();
  own.colors = colors;
}

/** Add a mask from a file to a sheet: where it is white, the label. */
function stamp(own, image, label) {
  const data = pixels(image, own.width, own.height);
  for (let n = 0; n < own.labels.length; n += 1) if (data[4 * n] > 127 && data[4 * n + 3] > 127) own.labels[n] = label;
}

/** Paint a sheet with what a file has. */
async function open(file, own, who) {
  const source = URL.createObjectURL(file);
  try {
    const image = await decoded(source).catch(() => { throw new Error(`${file.name}: the browser cannot show this picture.`); });
    const found = isRegions && labelsOf(plainColors(image, file.name), own);
    remember(own);
    if (isRegions) stampColors(own, image, found);
    else stamp(own, image, who);
  } finally {
    URL.revokeObjectURL(source);
  }
  rebuild();
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
  context.drawImage(hard, 0, 0); // beyond the picture is nothing, into which the blur fades
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
  const more = isRegions && regions.length < COLORS.length && h("button", { type: "button", class: "quiet", onclick: () => { addRegion(); tool.who = regions.length; rebuild(); } }, "One more region");
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
  const undo = () => { if (sheet.undo.length) { Object.assign(sheet, sheet.undo.pop()); draw(); count(); } };
  const rest = () => change((labels) => labels.forEach((label, n) => { if (!label) labels[n] = tool.who; }));
  const invert = () => change((labels) => labels.forEach((label, n) => { if (label === tool.who) labels[n] = 0; else if (!label) labels[n] = tool.who; }));
  const clear = () => change((labels) => labels.forEach((label, n) => { if (label === tool.who) labels[n] = 0; }));
  const save = async () => h("a", { href: URL.createObjectURL(await (isRegions ? labelMap() : mask(tool.who))), download: isRegions ? "labels.png" : `mask-${tool.who}.png` }).click();
  return h("div", { class: "row" }, button("Undo", undo), button("Fill the rest", rest), button("Invert", invert), button("Clear", clear), button(isRegions ? "Open label map" : "Open PNG", () => choose((file) => tried(() => open(file, sheet, tool.who)))), button("Save PNG", save));
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

/** Build the dialog anew; the list of regions has the focus. */
function rebuild() {
  build();
  place();
  redraw();
  $("painter").querySelector("[name=who]:checked")?.focus();
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
  [draft.content, ...draft.styles].forEach((one) => { Object.assign(one, { labels: "", colors: [] }); });
  draft.content.feather = tool.feather;
  kept();
}

/** Keep a label map of each picture that is painted on: a painting that is bare is used whole for every region. */
async function keepRegions() {
  const has = sheets.map((one) => areas(one).map((sum) => sum > LEAST * one.labels.length));
  const isPainted = has.map((labels) => labels.slice(1).some(Boolean));
  if (!isPainted[0]) throw new Error("Paint a region in the photograph first.");
  if (!isPainted.slice(1).some(Boolean)) throw new Error(`Paint what the regions are made of in ${draft.styles.length > 1 ? "a painting" : draft.styles[0].name}, too.`);
  sheets.slice(1).forEach((one, n) => {
    const lacking = isPainted[n + 1] ? has[0].findIndex((there, label) => there && !has[n + 1][label]) : -1;
    if (lacking === 0) throw new Error(`Leave a part of ${one.of.name} bare: it is for what is bare in the photograph.`);
    if (lacking > 0) throw new Error(`Paint ${regions[lacking - 1]} in ${one.of.name}, too.`);
  });
  for (const [n, one] of sheets.entries()) {
    sheet = one;
    const to = n ? draft.styles[n - 1] : draft.content;
    to.labels = isPainted[n] ? await upload(`regions-${n}`, labelMap()) : "";
    to.colors = [...one.colors];
  }
  draft.styles.forEach((style) => { style.mask = ""; });
  kept();
}

function kept() {
  key = keyOf();
  $("painter").close();
  changed();
  say("The regions are set.");
}

export function start() {
  window.addEventListener("resize", () => { if ($("painter").open) place(); });
}
