// One job below its picture, the strip of the latest ones, and the gallery.

import { $, ask, duration, h, plain, say, tried } from "./dom.js";
import { given } from "./draft.js";
import { done, jobs, newest, picture, steps } from "./jobs.js";
import { LOOKS } from "./panel.js";

const STRIP = 24;
const WORDS = { queued: "Waits", running: "Being made", paused: "Paused", done: "Finished", failed: "Failed", cancelled: "Cancelled" };
const open = { losses: false, numbers: false, command: false };
const NONE = { id: "", history: [], command: "" };
let details = NONE;
let built = "";

const act = (job, action, body) => tried(() => ask("POST", `/api/jobs/${job.id}/${action}`, body));

// One job

const button = (name, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, name);

function menu(name, items) {
  const list = h("div", { hidden: true }, items);
  const hide = (isHidden) => { list.hidden = isHidden; opener.setAttribute("aria-expanded", String(!isHidden)); };
  const opener = button(name, () => hide(!list.hidden), { "aria-expanded": "false" });
  const box = h("div", { class: "menu", onkeydown: (event) => { if (event.key === "Escape") { hide(true); opener.focus(); } } }, opener, list);
  box.addEventListener("focusout", (event) => { if (!box.contains(event.relatedTarget)) hide(true); });
  list.addEventListener("click", (event) => { if (!event.target.closest("input")) hide(true); });
  return box;
}

function downloads(job) {
  const kinds = job.clip ? { mp4: "MP4" } : { png: "PNG, 16 bits", jpg: "JPEG", webp: "WebP", tif: "TIFF, 16 bits" };
  return menu("Download", Object.entries(kinds).map(([kind, word]) =>
    h("a", { class: "button", href: `/api/jobs/${job.id}/download.${kind}`, download: "" }, word)));
}

function further(job) {
  const more = (steps) => act(job, "extend", { steps });
  const field = h("input", { type: "number", min: "1", max: "1000000", value: "500", "aria-label": "How many more steps" });
  const form = h("form", { class: "count", onsubmit: (event) => { event.preventDefault(); more(Number(field.value)); } }, field, h("button", { type: "submit" }, "more"));
  return menu("More steps", [...[25, 50, 100, 200].map((count) => button(`${count} more`, () => more(count))), form]);
}

async function remove(job) {
  if (!confirm("Delete this picture and all that belongs to it?")) return;
  await tried(() => ask("DELETE", `/api/jobs/${job.id}`));
  location.hash = "#make";
}

const each = (name, values, more = {}) => values.map((value) => [`${name.replaceAll("_", " ")} ${value}`, { ...more, [name]: value }]);
const sheets = () => ({
  "Five strengths": each("strength", [0.2, 0.4, 0.6, 0.8, 1]),
  "Five stroke sizes": each("stroke_size", [0.5, 0.7, 1, 1.4, 2]),
  "All looks": Object.keys(LOOKS).map((preset) => [`look ${LOOKS[preset][0]}`, { preset }]),
  "Five starts from noise": each("seed", [1, 2, 3, 4, 5], { init: "noise" }),
});

/** Make a picture of each kind that a sheet has, and show them side by side. */
async function vary(job, variants) {
  await tried(async () => {
    const { inputs, options } = await ask("GET", `/api/jobs/${job.id}`);
    const title = job.title || "Picture";
    for (const [name, changes] of variants) {
      const own = { title: `${title.slice(0, 80)} · ${name}`, inputs, options: given(options, changes) };
      const made = await ask("POST", "/api/jobs", own);
      jobs.set(made.id, made);
    }
    $("search").value = `${title} · ${variants[0][0].split(" ")[0]}`;
    location.hash = "#gallery";
  });
}

const varied = (job) => menu("Vary", Object.entries(sheets()).map(([name, variants]) => button(name, () => vary(job, variants))));

/** Go on from this picture at a larger size: it is the first one of the next. */
async function larger(job, reuse) {
  const start = await act(job, "as_picture");
  if (start) await reuse(job, start);
}

function actions(job, reuse) {
  const again = button("Use these settings", () => reuse(job));
  const gone = button("Delete", () => remove(job), { class: "quiet" });
  const cancel = button("Cancel", () => act(job, "cancel"), { class: "quiet" });
  const carryOn = button("Carry on", () => act(job, "carry_on"), { class: "primary" });
  const saved = job.result ? downloads(job) : null;
  return {
    queued: [button("Make it next", () => act(job, "front")), cancel],
    running: [button("Pause", () => act(job, "pause")), !job.clip && button("Stop and keep", () => act(job, "keep")), cancel],
    paused: [carryOn, saved, again, gone],
    done: [saved, again, job.resumable && further(job), !job.clip && button("Larger", () => larger(job, reuse)), !job.clip && varied(job), gone],
    failed: [button("Try again", () => act(job, "carry_on")), again, gone],
    cancelled: [carryOn, again, gone],
  }[job.status];
}

function toggle(name, word) {
  const own = button(word, () => {
    open[name] = !open[name];
    own.setAttribute("aria-pressed", String(open[name]));
    renderDetails();
  }, { class: "quiet", "aria-pressed": String(open[name]) });
  return own;
}

function build(job, reuse) {
  const title = h("input", { type: "text", class: "title", value: job.title, "aria-label": "Title", maxlength: "120" });
  title.onchange = () => act(job, "rename", { title: title.value });
  const what = h("div", { class: "what" }, title, h("p", { class: "small", id: "job-status", role: "status" }));
  const bar = h("div", { class: "bar", id: "job-bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": "0", "aria-valuemax": "100" }, h("i"));
  const line = h("div", { class: "line" }, what, h("div", { class: "acts" }, actions(job, reuse).filter(Boolean)));
  const views = h("div", { class: "row" }, toggle("losses", "Losses"), job.result && !job.clip && toggle("numbers", "Numbers"), toggle("command", "Command"), h("span", { class: "small", id: "job-plan" }));
  const film = job.clip && job.result && h("video", { controls: true, loop: true, src: `/api/jobs/${job.id}/clip.mp4` });
  $("job").replaceChildren(bar, line, film || "", h("p", { class: "error", id: "job-error" }), h("p", { class: "small", id: "job-notes" }), views, h("div", { id: "job-details" }));
}

function status(job) {
  const all = steps(job);
  if (job.status === "queued") {
    const before = [...jobs.values()].filter((one) => one.status === "queued" && one.order < job.order).length;
    return before ? `Waits for ${before} before it` : "Is the next one";
  }
  if (job.status === "running") {
    if (!job.step && job.left === null) return "Getting ready; the first time of a size takes longest";
    return [`${job.clip ? "Frame" : "Step"} ${job.step} of ${all}`, job.left ? `about ${duration(job.left)} left` : ""].filter(Boolean).join(" · ");
  }
  return [WORDS[job.status], all ? `${job.clip ? "frame" : "step"} ${job.step} of ${all}` : ""].filter(Boolean).join(" · ");
}

/** Show a job: what stays is built once, what moves is set. */
export function renderJob(job, reuse) {
  $("job").hidden = !job;
  if (!job) {
    built = "";
    return;
  }
  const key = [job.id, job.status, job.result, job.resumable, job.title].join();
  if (key !== built) {
    if (details.id !== job.id) details = NONE;
    build(job, reuse);
    built = key;
    loadDetails(job);
  }
  $("job-status").textContent = status(job);
  $("job-plan").textContent = job.status === "running" ? job.plan.slice(-1)[0] || "" : "";
  $("job-error").textContent = plain(job.error);
  $("job-notes").textContent = job.notes.slice(-2).map(plain).join("; ");
  $("job-notes").hidden = !job.notes.length;
  const share = done(job);
  $("job-bar").hidden = job.status === "done" || job.status === "failed";
  $("job-bar").setAttribute("aria-valuenow", String(Math.round(100 * share)));
  $("job-bar").firstChild.style.transform = `scaleX(${share})`;
  const last = details.history[details.history.length - 1];
  if (details.id === job.id && job.losses.total && (!last || job.step > last.step)) details.history.push({ step: job.step, ...job.losses });
  if (open.losses) renderDetails();
}

async function loadDetails(job) {
  const found = await tried(() => ask("GET", `/api/jobs/${job.id}`));
  if (!found) return;
  details = found;
  renderDetails();
}

function renderDetails() {
  const box = $("job-details");
  if (!box) return;
  const parts = [];
  if (open.losses) parts.push(...plot(details.history));
  if (open.numbers && details.result && !details.clip) parts.push(numbers(details));
  if (open.command && details.command) {
    const copy = button("Copy", () => navigator.clipboard.writeText(details.command).then(() => say("Copied.")), { class: "quiet" });
    parts.push(h("p", { class: "code" }, details.command), copy);
  }
  box.replaceChildren(...parts);
}

/** How far the picture is from the photograph and from the painting: measured once, when somebody asks. */
function numbers(job) {
  const measure = async (event) => {
    event.target.disabled = true;
    event.target.textContent = "Measuring…";
    await act(job, "judge");
    await loadDetails(job);
  };
  if (!job.measures.length) return button("Measure how near it is to the photograph and to the painting", measure);
  const row = (one) => h("tr", {}, h("th", { scope: "row" }, one.name.replaceAll("_", " ")), h("td", {}, one.value.toPrecision(3)), h("td", {}, one.to), h("td", {}, one.tells));
  const head = h("tr", {}, ["Number", "Value", "Distance to the", "Tells"].map((word) => h("th", { scope: "col" }, word)));
  return h("div", { class: "scroll-x" }, h("table", {}, h("caption", { class: "small" }, "Smaller is nearer, which is not better."), h("thead", {}, head), h("tbody", {}, job.measures.map(row))));
}

const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
};

/** The weighted losses over the steps, the axis of losses logarithmic. */
function plot(history) {
  if (history.length < 2) return [h("p", { class: "small" }, "The losses show after two steps.")];
  const names = Object.keys(history[0]).filter((name) => name !== "step");
  const values = history.flatMap((point) => names.map((name) => point[name])).filter((value) => value > 0);
  const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))];
  const [first, last] = [history[0].step, history[history.length - 1].step];
  const x = (step) => (1000 * (step - first)) / (last - first || 1);
  const y = (value) => 95 - (90 * (Math.log(value) - low)) / (high - low || 1);
  const picture = svg("svg", { class: "plot", viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": `Losses from step ${first} to ${last}` });
  names.forEach((name, n) => {
    const line = history.filter((point) => point[name] > 0).map((point) => `${x(point.step).toFixed(1)},${y(point[name]).toFixed(1)}`);
    picture.append(svg("path", { d: `M${line.join("L")}`, class: `c${n}` }));
  });
  const end = history[history.length - 1];
  const legend = names.map((name, n) => h("span", {}, h("b", { class: `c${n}` }), `${name} ${end[name].toPrecision(3)}`));
  return [picture, h("p", { class: "legend" }, legend)];
}

// All jobs

function card(job, current) {
  const inside = job.picture ? h("img", { src: picture(job, job.status === "running" ? "live.jpg" : "thumb.jpg"), alt: "", loading: "lazy" }) : h("span", { class: "none" }, WORDS[job.status]);
  if (job.picture && job.status !== "running") inside.onerror = () => { inside.onerror = null; inside.src = picture(job, "live.jpg"); };
  const running = ["running", "queued", "paused"].includes(job.status);
  const mark = running && h("span", { class: "mark" }, h("i"));
  if (mark) mark.firstChild.style.transform = `scaleX(${done(job)})`;
  const name = `${job.title || "Picture"}, ${WORDS[job.status].toLowerCase()}`;
  return h("a", { class: "card", href: `#job/${job.id}`, "aria-label": name, title: name, "aria-current": current ? "true" : null }, inside, mark);
}

let drawn = "";
export function renderStrip(current) {
  const shown = newest().slice(0, STRIP);
  const key = shown.map((job) => [job.id, job.status, job.picture && job.status !== "running", Math.round(20 * done(job)), job.title].join(":")).join() + current;
  if (key === drawn) return;
  drawn = key;
  const focused = document.activeElement?.getAttribute("href");
  $("strip").hidden = !shown.length;
  $("strip").replaceChildren(...shown.map((job) => h("li", {}, card(job, job.id === current))));
  if (focused) $("strip").querySelector(`[href="${focused}"]`)?.focus();
}

export function renderGallery() {
  const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (job) => [job.title, job.preset, WORDS[job.status], ...(job.style || []), job.content].join(" ").toLowerCase();
  const shown = newest().filter((job) => wanted.every((word) => text(job).includes(word)));
  $("count").textContent = `${shown.length} ${shown.length === 1 ? "picture" : "pictures"}`;
  const day = (job) => new Date(1000 * job.created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  $("grid").replaceChildren(...shown.map((job) =>
    h("li", {}, card(job), h("p", { class: "cap" }, job.title || "Picture"), h("p", { class: "small" }, job.status === "done" ? day(job) : WORDS[job.status]))));
}
