// The picture: live, beside the photograph, at one zoom for both.

import { $ } from "./dom.js";

const MOST = 16; // times
const HANDLE = 2.2; // rem, as in style.css
const view = { scale: 1, x: 0, y: 0 };
let shown = { before: "", after: "", key: "" };

function apply() {
  $("frame").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  $("canvas").classList.toggle("zoomed", view.scale > 1);
  cut();
}

/** Lay out the frame as the picture fits, and the slider over it: its handle goes from edge to edge. */
function place() {
  const [box, frame, slider] = ["canvas", "frame", "compare"].map($);
  const image = [$("before"), $("after")].find((one) => !one.hidden && one.naturalWidth);
  if (!image) return;
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const inset = (innerWidth > 860 ? 1.4 : 0.7) * rem;
  const most = innerWidth > 860 ? "" : `${Math.min(0.58 * innerHeight, ((innerWidth - 2 * inset) * image.naturalHeight) / image.naturalWidth + 2 * inset)}px`;
  if (box.style.height !== most) box.style.height = most;
  const scale = Math.min((box.clientWidth - 2 * inset) / image.naturalWidth, (box.clientHeight - 2 * inset) / image.naturalHeight);
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  const [left, top] = [(box.clientWidth - width) / 2, (box.clientHeight - height) / 2];
  Object.assign(frame.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  const half = HANDLE * rem / 2;
  Object.assign(slider.style, { left: `${left - half}px`, top: `${top}px`, width: `${width + 2 * half}px`, height: `${height}px` });
  $("tags").style.inset = `${top}px ${left}px auto ${left}px`;
  cut();
}

/** Cut the picture where the slider stands, so that the photograph shows to its left. */
function cut() {
  const [slider, frame] = [$("compare").getBoundingClientRect(), $("frame").getBoundingClientRect()];
  const half = HANDLE * parseFloat(getComputedStyle(document.documentElement).fontSize) / 2;
  const share = $("compare").hidden ? 0 : Number($("compare").value) / 100;
  const x = slider.left + half + share * (slider.width - 2 * half);
  const left = share && Math.min(100, Math.max(0, (100 * (x - frame.left)) / frame.width));
  $("after").style.clipPath = share === 1 ? "inset(0 0 0 100%)" : `inset(0 0 0 ${left}%)`;
  $("tags").hidden = share < 0.02;
}

function zoom(factor, at) {
  const box = $("canvas").getBoundingClientRect();
  const x = (at ? at.clientX - box.left : box.width / 2) - $("frame").offsetLeft;
  const y = (at ? at.clientY - box.top : box.height / 2) - $("frame").offsetTop;
  const scale = Math.min(MOST, Math.max(1, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  if (scale === 1) view.x = view.y = 0;
  apply();
}

export function fit() {
  Object.assign(view, { scale: 1, x: 0, y: 0 });
  apply();
}

/** Show a photograph and the picture that is made of it; either may be missing. */
export function show({ before, after, key, alt }) {
  const any = Boolean(before || after);
  $("empty").hidden = any;
  if (!any) $("canvas").style.height = "";
  $("frame").hidden = !any;
  $("zoom").hidden = !any;
  $("compare").hidden = !(before && after);
  if (key !== shown.key) {
    fit();
    $("compare").value = 0;
    $("after").hidden = true;
    $("after").removeAttribute("src");
    shown = { before: "", after: "", key };
  }
  if (before !== shown.before) {
    if (before) $("before").src = before;
    else $("before").removeAttribute("src");
    $("before").hidden = !before;
  }
  if (after && after !== shown.after) swap(after, key);
  $("after").alt = alt || "";
  shown = { before, after, key };
  place();
}

/** Show the next picture once all of it is there: nothing flickers. */
function swap(source, key) {
  const next = new Image();
  next.src = source;
  next.decode().then(() => {
    if (shown.key !== key || shown.after !== source) return;
    $("after").src = source;
    $("after").hidden = false;
    place();
  }).catch(() => { /* the next one comes */ });
}

export function start() {
  const canvas = $("canvas");
  const pointers = new Map();
  canvas.addEventListener("wheel", (event) => {
    if ($("frame").hidden) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), event);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if ($("frame").hidden || event.target.closest("button, input")) return;
    pointers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const others = [...pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    if (others.length) {
      const far = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY) || 1;
      zoom(far(event) / far(before), others[0]);
    } else if (view.scale > 1) {
      view.x += event.clientX - before.clientX;
      view.y += event.clientY - before.clientY;
      apply();
    }
    pointers.set(event.pointerId, event);
  });
  const up = (event) => pointers.delete(event.pointerId);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("dblclick", (event) => (view.scale > 1 ? fit() : zoom(2.5, event)));
  $("compare").addEventListener("input", cut);
  $("before").addEventListener("load", place);
  $("after").addEventListener("load", place);
  new ResizeObserver(place).observe(canvas);
  $("zoom").addEventListener("click", (event) => {
    const way = event.target.dataset.zoom;
    if (way === "fit") fit();
    else if (way) zoom(way === "in" ? 1.5 : 1 / 1.5);
  });
}
