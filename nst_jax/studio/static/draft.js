// What the next picture is to be made of: pictures, masks and the options that were given. It outlives a reload.

const KEY = "nst-studio-draft";
const empty = () => ({ title: "", content: null, styles: [], options: {} });

export const draft = empty();
export const about = {};
const listeners = [];

export const onChange = (listener) => listeners.push(listener);

export function changed() {
  try {
    localStorage.setItem(KEY, JSON.stringify(draft));
  } catch { /* no room: the draft lives as long as the page */ }
  listeners.forEach((listener) => listener());
}

export function load() {
  try {
    Object.assign(draft, empty(), JSON.parse(localStorage.getItem(KEY)) || {});
  } catch { /* as good as none */ }
}

/** The value of an option: what was given, else the preset's. */
export function valueOf(name) {
  if (name in draft.options) return draft.options[name];
  const preset = about.presets[draft.options.preset || about.preset];
  return name in preset ? preset[name] : about.options.find((one) => one.name === name).default;
}

const REPLACES = { effort: ["iterations"], iterations: ["effort"], strength: ["content_weight", "style_weight"] };

/** Options with some more given, without those in whose place these come. */
export function given(options, changes) {
  const gone = Object.keys(changes).flatMap((name) => REPLACES[name] || []);
  const rest = Object.entries(options).filter(([name]) => !gone.includes(name));
  return { ...Object.fromEntries(rest), ...changes };
}

export function give(name, value) {
  draft.options = given(draft.options, { [name]: value });
  changed();
}

export function reset(name) {
  delete draft.options[name];
  changed();
}

/** What is asked of the studio: a picture, or of a whole clip. */
export function recipe(clip) {
  const { content, styles, title } = draft;
  const options = { ...draft.options };
  const inputs = { style: styles.map((one) => one.reference) };
  if (clip) inputs.clip = clip.reference;
  else if (content) inputs.content = content.reference;
  if (styles.some((one) => one.mask)) inputs.style_mask = styles.map((one) => one.mask || "");
  if (content?.labels) {
    inputs.content_labels = content.labels;
    if (styles.some((one) => one.labels)) inputs.style_labels = styles.map((one) => one.labels || "");
  }
  if (styles.length > 1 && styles.some((one) => one.share !== 50)) options.style_mix = styles.map((one) => one.share);
  else delete options.style_mix;
  return { title: title || named(clip || content), inputs, options };
}

const named = (content) => {
  const bare = (one) => one.name.replace(/^example:/, "").replace(/\.\w{2,4}$/, "");
  return [content, ...draft.styles].filter(Boolean).map(bare).join(" · ").slice(0, 120);
};

/** Take the settings of a picture, whose content may be known; `look` returns what is of a reference. */
export async function restore(found, look) {
  const { inputs, options } = found;
  const mix = options.style_mix || [];
  const shares = mix.map((one) => Math.round((one / Math.max(...mix)) * 50));
  const styles = await Promise.all(
    (inputs.style || []).map(async (reference, number) => {
      if (!reference) return null;
      const [mask, labels] = ["style_mask", "style_labels"].map((name) => (inputs[name] || [])[number] || "");
      return { ...(await look(reference)), share: shares[number] || 50, mask, labels };
    }),
  );
  const { content } = inputs;
  draft.content = content?.reference ? content : content ? await look(content) : draft.content;
  if (draft.content) Object.assign(draft.content, { labels: inputs.content_labels || "", colors: [], feather: 0 });
  draft.styles = styles.some(Boolean) ? styles.filter(Boolean) : draft.styles;
  draft.options = { ...options };
  draft.title = "";
  changed();
}

/** The smaller side of the photograph over the larger one. */
function aspect() {
  const { width, height } = draft.content || { width: 3, height: 2 };
  return Math.min(width, height) / Math.max(width, height);
}

/** The pixels of the picture. */
export const pixels = () => valueOf("size") ** 2 * aspect();

/** The pixels of all steps that these options come to, for the time that they will take. */
export function work() {
  const size = valueOf("size");
  const given = [valueOf("iterations")].flat();
  const effort = about.efforts[valueOf("effort")];
  let sizes = [size];
  if (valueOf("scales") === "auto") {
    const scale = (n) => Math.round(size / 2 ** (n * effort.octaves));
    sizes = [];
    for (let n = 0; scale(n) >= 128; n += 1) sizes.unshift(scale(n));
    sizes = sizes.length ? sizes : [size];
  } else if (valueOf("scales")) sizes = valueOf("scales").split(",").map(Number);
  const shares = sizes.length > 1 ? sizes.length + 1 : about.alone;
  const total = given.length ? given.reduce((sum, one) => sum + one, 0) : effort.steps * shares;
  const share = Math.floor(total / (sizes.length + 1));
  const steps = sizes.map((_, n) => (given.length > 1 ? given[n] || 0 : n ? share : total - share * (sizes.length - 1)));
  return sizes.reduce((sum, one, n) => sum + steps[n] * one * one, 0) * aspect();
}
