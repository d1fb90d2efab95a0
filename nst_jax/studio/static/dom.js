// Elements, requests and small words: what all of the page shares.

export const $ = (id) => document.getElementById(id);

/** Make an element: properties, on... listeners, data and aria attributes; children are elements or text. */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Ask the studio; what it says is wrong is thrown as one line. */
export async function ask(method, path, body) {
  const isFile = body instanceof Blob;
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: body === undefined || isFile ? body : JSON.stringify(body),
      headers: body === undefined || isFile ? {} : { "Content-Type": "application/json" },
    });
  } catch {
    throw new Error("The studio does not answer. Is nst-studio still running?");
  }
  const isJson = (answer.headers.get("Content-Type") || "").startsWith("application/json");
  const data = isJson ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(data.error || `The studio answers ${answer.status}.`);
  return data;
}

export const pictureOf = (reference, what) => `/api/pictures/${reference}/${what}`;
export const plain = (text) => text.replace(/`([^`]*)`/g, "$1").replace(/--([a-z_]+)/g, "$1");

const toast = $("toast");
let timer = 0;
/** Show a message, in the dialog if one is open: it covers all else. */
export function say(text, wrong = false) {
  (document.querySelector("dialog[open]") || document.body).append(toast);
  toast.textContent = plain(text);
  toast.classList.toggle("wrong", wrong);
  toast.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { toast.hidden = true; }, wrong ? 9000 : 3500);
}

/** Run something that may fail, and say what was wrong. */
export async function tried(what) {
  try {
    return await what();
  } catch (error) {
    say(error.message, true);
    return undefined;
  }
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const choose = (then, { camera = false, several = false, clips = false } = {}) => {
  const accept = `image/*,.tif,.tiff${clips ? ",video/*,.mkv" : ""}`;
  const input = h("input", { type: "file", accept, multiple: several });
  if (camera) input.capture = "environment";
  input.onchange = () => [...input.files].forEach(then);
  input.click();
};
