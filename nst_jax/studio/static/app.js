// The page: which view is open, and how its parts hear of each other.

import { $, ask, choose, pictureOf, say, tried } from "./dom.js";
import * as drafts from "./draft.js";
import { jobs, know, listen, onJobs, picture, state } from "./jobs.js";
import * as painter from "./painter.js";
import * as panel from "./panel.js";
import * as viewer from "./viewer.js";
import { renderGallery, renderJob, renderStrip } from "./work.js";

const { about, draft } = drafts;
const look = (reference) => ask("GET", pictureOf(reference, "facts"));
const current = () => (location.hash.startsWith("#job/") ? jobs.get(location.hash.slice(5)) : undefined);

function renderView() {
  const job = current();
  const isGallery = location.hash === "#gallery";
  $("make").hidden = isGallery;
  $("gallery").hidden = !isGallery;
  $("to-gallery").toggleAttribute("aria-current", isGallery);
  $("to-make").toggleAttribute("aria-current", !isGallery);
  if (isGallery) {
    renderGallery();
    return;
  }
  renderJob(job, reuse);
  renderStrip(job && job.id);
  renderPicture(job);
  renderDevice();
}

function renderPicture(job) {
  if (!job) {
    const { content } = draft;
    viewer.show({ before: content && pictureOf(content.reference, "view.jpg"), after: "", key: content ? content.reference : "" });
    return;
  }
  const before = job.content ? pictureOf(job.content, "view.jpg") : job.clip && !job.picture ? pictureOf(job.clip, "view.jpg") : "";
  viewer.show({ before, after: job.picture ? picture(job, "live.jpg") : "", key: job.id, alt: job.title || "The picture" });
}

function renderDevice() {
  const waiting = [...jobs.values()].filter((job) => job.status === "queued").length;
  const device = state.device.kind ? `${state.device.platform === "cpu" ? "CPU" : state.device.kind}` : "starting…";
  const parts = [state.broken || device, waiting ? `${waiting} waiting` : ""];
  $("device").textContent = state.connected ? parts.filter(Boolean).join(" · ") : "not connected; trying again…";
  $("device").classList.toggle("wrong", Boolean(state.broken) || !state.connected);
}

/** Bring a job's settings back; with a picture to start from, for one of twice its size. */
async function reuse(job, start) {
  await tried(async () => {
    const found = await ask("GET", `/api/jobs/${job.id}`);
    const { inputs } = found;
    if (inputs.clip) inputs.content = await panel.frameOf(await look(inputs.clip), 1);
    const changes = start ? { init: start.reference, size: Math.max(start.width, start.height) * 2, scales: "", iterations: [60] } : {};
    const options = drafts.given(found.options, changes);
    await drafts.restore({ inputs, options }, look);
    say(start ? "The next one goes on from this picture, at twice its size." : "These are its settings. Change what you like, and make the next one.");
  });
}

async function make(event, clip) {
  event.preventDefault();
  panel.problem("");
  if (!draft.content && !draft.styles.length) return panel.problem("Choose a photograph and a painting.");
  if (!draft.content) return panel.problem("Choose a photograph.");
  if (!draft.styles.length) return panel.problem("Choose a painting.");
  try {
    const job = await ask("POST", "/api/jobs", drafts.recipe(clip));
    jobs.set(job.id, job);
    location.hash = `#job/${job.id}`;
    if (matchMedia("(max-width: 860px)").matches) scrollTo({ top: 0 });
  } catch (error) {
    panel.problem(error.message);
  }
  return undefined;
}

/** Take a file: a finished picture brings its settings back, else it is the photograph or one more painting. */
async function take(file, role) {
  const found = await panel.upload(file);
  const { recipe } = found;
  if (recipe) {
    await drafts.restore(recipe, look);
    const lacking = recipe.missing.length ? ` Not here any more: ${recipe.missing.join(", ")}.` : "";
    say(`These are the settings of ${found.name}.${lacking}`, Boolean(lacking));
  } else panel.use(found, role || (draft.content ? "style" : "content"));
  if (location.hash !== "#make") location.hash = "#make";
}

function drops() {
  let depth = 0;
  const isFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  const shown = (on) => { $("drop").hidden = !on; };
  addEventListener("dragenter", (event) => { if (isFile(event)) { depth += 1; shown(true); } });
  addEventListener("dragleave", (event) => { if (isFile(event)) { depth -= 1; shown(depth > 0); } });
  addEventListener("dragover", (event) => { if (isFile(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    depth = 0;
    shown(false);
    const place = event.target.closest && event.target.closest("#photograph, #paintings");
    const role = place && (place.id === "photograph" ? "content" : "style");
    takeAll([...event.dataTransfer.files], role);
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) takeAll(files);
  });
}

async function takeAll(files, role) {
  for (const file of files) await tried(() => take(file, role));
}

async function start() {
  const { now, ...rest } = await ask("GET", "/api/about");
  Object.assign(about, rest);
  know(now); // a stream of events may open late, behind the pictures
  drafts.load();
  $("choose").onclick = () => choose((file) => tried(() => take(file, "content")), { clips: true });
  $("camera").hidden = !matchMedia("(pointer: coarse)").matches;
  $("camera").onclick = () => choose((file) => tried(() => take(file, "content")), { camera: true });
  $("example-photographs").append(...panel.examples(about.photographs, "content"));
  $("panel").addEventListener("submit", make);
  $("go-clip").onclick = (event) => make(event, draft.content.clip);
  $("search").addEventListener("input", renderGallery);
  panel.start();
  viewer.start();
  painter.start();
  drops();
  let photograph = draft.content?.reference;
  drafts.onChange(() => {
    panel.problem("");
    panel.renderPanel();
    if (photograph !== draft.content?.reference) location.hash = "#make";
    photograph = draft.content?.reference;
    renderView();
  });
  onJobs((id) => {
    if (id === null) renderDevice();
    if (location.hash === "#gallery") renderGallery();
    else renderView();
    panel.renderForecast();
  });
  addEventListener("hashchange", () => { renderView(); panel.renderForecast(); });
  panel.renderPanel();
  renderDevice();
  renderView();
  listen();
  document.body.classList.remove("loading"); // all at once, so that nothing jumps
}

tried(start);
