// The settings: pictures, the dials that most people want, and every other option from what the studio tells of it.

import { $, ask, choose, duration, h, pictureOf, plain, say, tried } from "./dom.js";
import { about, changed, draft, give, pixels, recipe, reset, valueOf, work } from "./draft.js";
import { jobs, memory, pace } from "./jobs.js";
import { paint } from "./painter.js";

export const COLORS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const SIZES = [128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];
export const LOOKS = {
  wasserstein: ["Painterly", "Clean areas in the painting's colors, from large shapes to small."],
  gatys: ["Classic", "The paper of 2015: strokes and colors may lie anywhere."],
  improved: ["Bold", "Stronger and busier, with less of the photograph."],
  strotss: ["Close", "The painting's own strokes, in the photograph's layout."],
  patch: ["Mosaic", "Pieces of the painting, put together anew."],
};
const COLOR_WORDS = {
  none: "The painting's", luma_swap: "The photograph's", luma: "The photograph's, light only", match: "Matched", histogram: "Matched closely",
};
const DIALS = ["strength", "effort", "stroke_size", "preserve_color", "size", "style_mix"];

/** What a picture is called, an example by its bare name. */
export const bare = (one) => one.name.replace(/^example:/, "");

/** Put a picture in the draft: as the photograph, or as one more painting. */
export function use(facts, role) {
  if (role === "content") draft.content = facts;
  else if (draft.styles.length >= about.max_styles) say(`At most ${about.max_styles} paintings.`, true);
  else draft.styles.push({ ...facts, share: 50, mask: "", labels: "" });
  if (role === "content") everywhere();
  changed();
}

/** Forget what was painted. */
function everywhere() {
  draft.styles.forEach((style) => { Object.assign(style, { mask: "", labels: "", colors: [] }); });
  if (draft.content) Object.assign(draft.content, { labels: "", colors: [], feather: 0 });
}

const isClip = (file) => file.type.startsWith("video/") || /\.(mp4|mov|mkv|webm|avi)$/i.test(file.name);

/** A frame of a clip, from 1: an ordinary picture that knows where it is from. */
export async function frameOf(clip, number) {
  return { ...(await ask("POST", `/api/clips/${clip.reference}/frame`, { number })), clip: { ...clip, number } };
}

export async function upload(file) {
  if (file.size > about.max_upload) throw new Error(`${file.name}: at most ${Math.round(about.max_upload / 1e6)} MB.`);
  const kind = isClip(file) ? "clips" : "pictures";
  const found = await ask("POST", `/api/${kind}?name=${encodeURIComponent(file.name || "picture")}`, file);
  if (isClip(file)) return frameOf(found, 1);
  (found.notes || []).slice(0, 1).forEach((note) => say(note));
  return found;
}

const pick = (role) => choose((file) => tried(async () => use(await upload(file), role)), { several: role === "style", clips: role === "content" });
const takeExample = (reference, role) => tried(async () => use(await ask("GET", pictureOf(reference, "facts")), role));

export function examples(references, role) {
  return references.map((reference) => {
    const name = reference.replace("example:", "");
    const image = h("img", { src: pictureOf(reference, "thumb.jpg"), alt: "" });
    const label = `Use the example ${name} as ${role === "content" ? "photograph" : "painting"}`;
    return h("button", { type: "button", class: "thumb", "aria-label": label, title: name, onclick: () => takeExample(reference, role) }, image);
  });
}

const addButton = (text, role) => h("button", { type: "button", class: "add", onclick: () => pick(role) }, h("b", { "aria-hidden": "true" }, "+"), text);

function renderPhotograph() {
  const { content } = draft;
  const parts = [h("legend", {}, "Photograph")];
  if (content) {
    const remove = h("button", { type: "button", class: "x", "aria-label": "Remove the photograph", onclick: () => { draft.content = null; changed(); } }, "×");
    const swap = h("button", { type: "button", class: "quiet", onclick: () => pick("content") }, "Change");
    parts.push(
      h("div", { class: "slots" }, h("div", { class: "slot big" },
        h("div", { class: "pic" }, h("img", { src: pictureOf(content.reference, "thumb.jpg"), alt: content.name }), remove),
        h("div", {}, h("span", { class: "cap" }, bare(content)), h("span", { class: "cap" }, `${content.width} × ${content.height}`), swap))),
      content.clip && frameDial(content.clip),
    );
  } else parts.push(h("div", { class: "slots" }, addButton("Add", "content")));
  $("photograph").replaceChildren(...parts.filter(Boolean));
  $("go-clip").hidden = !content?.clip;
}

/** Which frame of the clip the look is tried on. */
function frameDial(clip) {
  const words = (number) => `${number} of ${clip.frames}`;
  const moved = (number) => tried(async () => { draft.content = await frameOf(clip, number); changed(); });
  return slider("frame-number", "Frame", { min: 1, max: clip.frames, step: 1 }, clip.number, words, moved);
}

function slot(style, number) {
  const remove = h("button", { type: "button", class: "x", "aria-label": `Remove ${style.name}`, onclick: () => { draft.styles.splice(number, 1); changed(); } }, "×");
  const mark = style.mask ? h("span", { class: "area", title: "acts where it is painted" }) : null;
  if (mark) mark.style.background = COLORS[number % COLORS.length];
  const share = h("input", { type: "range", min: "1", max: "100", value: String(style.share), "aria-label": `Share of ${style.name}`, title: "Share" });
  share.onchange = () => { style.share = Number(share.value); changed(); };
  return h("div", { class: "slot" },
    h("div", { class: "pic" }, h("img", { src: pictureOf(style.reference, "thumb.jpg"), alt: style.name }), remove, mark),
    h("span", { class: "cap" }, bare(style)), draft.styles.length > 1 ? share : null);
}

function renderPaintings() {
  const { styles, content } = draft;
  const parts = [h("legend", {}, styles.length > 1 ? "Paintings" : "Painting")];
  parts.push(h("div", { class: "slots" }, styles.map(slot), addButton(styles.length ? "One more" : "Add", "style")));
  if (!styles.length) parts.push(h("div", { class: "try" }, "or try", examples(about.paintings, "style")));
  if (styles.length && content) {
    const [masked, matched] = [styles.some((one) => one.mask), Boolean(content.labels)];
    const quiet = (name, onclick) => h("button", { type: "button", class: "quiet", onclick }, name);
    const open = quiet(masked ? "Change where each acts" : "Paint where each acts", () => tried(paint));
    const match = quiet(matched ? "Change what is made of what" : "Match regions", () => tried(() => paint({ regions: true })));
    const clear = (masked || matched) && quiet("Everywhere", () => { everywhere(); changed(); });
    parts.push(h("div", { class: "row" }, open, match, clear));
  }
  $("paintings").replaceChildren(...parts);
}

function dial(id, name, shown, control, ...below) {
  return h("div", { class: "dial" }, h("div", { class: "head" }, h("label", { for: id }, name), shown), control, ...below);
}

function slider(id, name, { min, max, step }, position, words, moved, ends) {
  const shown = h("output", { for: id }, words(position));
  const control = h("input", { type: "range", id, min: String(min), max: String(max), step: String(step) });
  control.value = position;
  control.setAttribute("aria-valuetext", words(position));
  control.oninput = () => { shown.textContent = words(Number(control.value)); control.setAttribute("aria-valuetext", shown.textContent); };
  control.onchange = () => moved(Number(control.value));
  return dial(id, name, shown, control, ends && h("div", { class: "ends" }, ends.map((end) => h("span", {}, end))));
}

function strengthDial() {
  const words = (value) => value.toFixed(2);
  const own = slider("strength", "Strength", { min: 0, max: 1, step: 0.01 }, valueOf("strength") ?? 0.68, words, (value) => give("strength", value), ["photograph", "painting"]);
  if (valueOf("strength") === null) own.querySelector("output").textContent = "as the look has it";
  return own;
}

function lookDial() {
  const chosen = valueOf("preset");
  const looks = Object.keys(LOOKS).filter((name) => name in about.presets).map((name) => {
    const [title, sentence] = LOOKS[name];
    const input = h("input", { type: "radio", name: "look", value: name, checked: name === chosen, "aria-describedby": "look-says" });
    input.onchange = () => { if (name === about.preset) reset("preset"); else give("preset", name); };
    const image = h("img", { src: `/static/${name}.jpg`, alt: "" });
    return h("label", { class: "look", title: sentence }, image, input, h("span", {}, title));
  });
  const says = h("p", { class: "small", id: "look-says" }, (LOOKS[chosen] || ["", `The preset ${chosen}.`])[1]);
  return h("fieldset", { class: "dial" }, h("legend", {}, "Look"), h("div", { class: "looks" }, looks), says);
}

function colorDial() {
  const option = about.options.find((one) => one.name === "preserve_color");
  const parts = option.choices.map((choice) => {
    const input = h("input", { type: "radio", name: "colors", value: choice, checked: valueOf("preserve_color") === choice });
    input.onchange = () => { if (choice === option.default) reset("preserve_color"); else give("preserve_color", choice); };
    return h("label", {}, input, COLOR_WORDS[choice] || choice);
  });
  return h("fieldset", { class: "dial" }, h("legend", {}, "Colors"), h("div", { class: "segments" }, parts));
}

function strokeDial() {
  const words = (position) => `× ${(2 ** position).toFixed(2)}`;
  const now = Math.log2(valueOf("stroke_size"));
  return slider("stroke", "Strokes", { min: -2, max: 2, step: 0.1 }, now, words, (position) => give("stroke_size", Number((2 ** position).toFixed(3))), ["small", "large"]);
}

function effortDial() {
  const parts = about.options.find((one) => one.name === "effort").choices.map((choice) => {
    const input = h("input", { type: "radio", name: "effort", value: choice, checked: valueOf("effort") === choice });
    input.onchange = () => give("effort", choice);
    return h("label", {}, input, choice);
  });
  return h("fieldset", { class: "dial" }, h("legend", {}, "Effort"), h("div", { class: "segments" }, parts));
}

function sizeDial() {
  const size = valueOf("size");
  const near = SIZES.reduce((best, one, n) => (Math.abs(one - size) < Math.abs(SIZES[best] - size) ? n : best), 0);
  const words = (position) => {
    const longest = position === near ? size : SIZES[position];
    const { width, height } = draft.content || {};
    if (!width) return `${longest} pixels`;
    const other = Math.round((longest * Math.min(width, height)) / Math.max(width, height));
    return width >= height ? `${longest} × ${other} pixels` : `${other} × ${longest} pixels`;
  };
  const own = slider("size", "Size", { min: 0, max: SIZES.length - 1, step: 1 }, near, words, (position) => give("size", SIZES[position]));
  own.append(h("div", { class: "row small", id: "forecast" }));
  return own;
}

const amounts = (seconds, bytes) => `about ${duration(seconds)}${bytes ? ` · ${(bytes / 2 ** 30).toFixed(1)} GiB of memory` : ""}`;

let forecast = { key: "", text: "" };
export function renderForecast() {
  const line = $("forecast");
  if (!line) return;
  const key = JSON.stringify(recipe());
  const seconds = pace(valueOf("preset"));
  const guess = seconds ? `${amounts(seconds * work(), memory(pixels()))}, going by earlier pictures` : "";
  const text = forecast.key === key ? forecast.text : guess;
  const ready = draft.content && draft.styles.length;
  const busy = [...jobs.values()].some((job) => job.status === "running");
  const measure = ready && !busy && forecast.key !== key;
  const measured = h("button", { type: "button", class: "quiet", onclick: (event) => measureIt(event.target, key) }, "Measure time and memory");
  line.replaceChildren(...[text && h("span", {}, text), measure && measured].filter(Boolean));
}

async function measureIt(button, key) {
  button.disabled = true;
  button.textContent = "Measuring…";
  const found = await tried(() => ask("POST", "/api/forecast", recipe()));
  if (found && found.error) say(found.error, true);
  else if (found) forecast = { key, text: amounts(found.seconds, found.memory) };
  renderForecast();
}

/** Render the dials anew; whoever had the focus has it again. */
export function renderPanel() {
  const focused = document.activeElement && document.activeElement.id;
  const radio = document.activeElement && document.activeElement.name && document.activeElement.checked && document.activeElement.name;
  renderPhotograph();
  renderPaintings();
  $("dials").replaceChildren(strengthDial(), lookDial(), colorDial(), strokeDial(), effortDial(), sizeDial());
  renderOptions();
  renderForecast();
  if (radio) document.querySelector(`input[name="${radio}"]:checked`)?.focus();
  else if (focused) $(focused)?.focus();
}

// All other options

function field(option, id) {
  const value = valueOf(option.name);
  const shown = Array.isArray(value) ? value.join(",") : String(value);
  if (option.type === "bool") return h("input", { type: "checkbox", id, checked: value === true });
  if (option.choices.length && !option.several) {
    const select = h("select", { id }, option.choices.map((choice) => h("option", { value: choice }, choice)));
    select.value = shown;
    return select;
  }
  const isNumber = option.type !== "str" && !option.several && typeof value === "number";
  const bounds = isNumber && { min: option.low, max: option.high, step: option.type === "int" ? "1" : "any" };
  return h("input", { type: isNumber ? "number" : "text", id, value: shown, inputmode: option.type === "str" ? "text" : "decimal", ...bounds });
}

function read(option, input) {
  if (option.type === "bool") return input.checked;
  const one = (text) => (option.type === "str" || text.trim() === "" || Number.isNaN(Number(text)) ? text.trim() : Number(text));
  if (!option.several) return one(input.value);
  return input.value.trim() ? input.value.split(",").map(one) : [];
}

function row(option) {
  const id = `option-${option.name}`;
  const input = field(option, id);
  input.addEventListener("change", () => give(option.name, read(option, input)));
  input.setAttribute("aria-describedby", `${id}-help`);
  const isSet = option.name in draft.options;
  const back = isSet && h("button", { type: "button", class: "quiet reset", onclick: () => reset(option.name) }, "Reset");
  const label = h("label", { for: id }, option.name.replaceAll("_", " "));
  const help = h("p", { class: "small", id: `${id}-help` }, `${plain(option.help)}. ${option.allowed}.`);
  const head = h("div", { class: "head" }, option.type === "bool" ? h("span", { class: "row" }, input, label) : label, back);
  return h("div", { class: `opt${isSet ? " set" : ""}`, "data-name": option.name }, head, option.type === "bool" ? null : input, help);
}

function renderOptions() {
  const wanted = $("find-option").value.toLowerCase();
  const fits = (one) => `${one.name.replaceAll("_", " ")} ${one.help}`.toLowerCase().includes(wanted);
  const acts = (one) => draft.content?.clip || !about.clip_options.includes(one.name);
  const others = about.options.filter((one) => (!DIALS.includes(one.name) || one.name === "size") && acts(one) && fits(one));
  $("all-options").replaceChildren(...others.map(row));
}

export function start() {
  $("find-option").addEventListener("input", renderOptions);
}

/** Show what is wrong where the person looks: at the option, and at the button. */
export function problem(text) {
  $("problem").textContent = text ? plain(text) : "";
  document.querySelectorAll(".opt.wrong").forEach((one) => one.classList.remove("wrong"));
  const named = /^`([a-z_]+)/.exec(text || "");
  const place = named && document.querySelector(`.opt[data-name="${named[1]}"]`);
  if (place) {
    $("more").open = true;
    place.classList.add("wrong");
    place.scrollIntoView({ block: "center" });
  }
}
