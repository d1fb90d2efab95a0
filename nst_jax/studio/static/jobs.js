// The jobs of the studio, as its stream of events tells of them: any tab can come and go.

export const jobs = new Map();
export const state = { device: {}, broken: "", free: 0, connected: true };
const listeners = [];

export const onJobs = (listener) => listeners.push(listener);
const tell = (id) => listeners.forEach((listener) => listener(id));

/** Take note of all jobs, and of how the studio is. */
export function know({ jobs: all, ...rest }) {
  jobs.clear();
  all.forEach((job) => jobs.set(job.id, job));
  Object.assign(state, rest, { connected: true });
  tell(null);
}

export function listen() {
  const stream = new EventSource("/api/events");
  const on = (kind, take) => stream.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  on("all", know);
  on("state", (rest) => {
    Object.assign(state, rest);
    tell(null);
  });
  on("job", (job) => {
    jobs.set(job.id, job);
    tell(job.id);
  });
  on("gone", ({ id }) => {
    jobs.delete(id);
    tell(id);
  });
  stream.onerror = () => {
    state.connected = false;
    tell(null);
  };
}

export const newest = () => [...jobs.values()].sort((one, other) => other.created - one.created);
export const steps = (job) => job.iterations.reduce((sum, one) => sum + one, 0);
export const done = (job) => (steps(job) ? job.step / steps(job) : 0);
export const picture = (job, file) => `/api/jobs/${job.id}/${file}?v=${job.picture}`;

/** Seconds that a pixel of a step took in the newest picture of this look, or of any. */
export function pace(preset) {
  const known = newest().filter((job) => job.pace);
  return (known.find((job) => job.preset === preset) || known[0] || {}).pace;
}

/** The bytes that so many pixels take, going by the picture of the nearest size; 0 where none is near. */
export function memory(count) {
  const octaves = (job) => Math.abs(Math.log2(job.pixels / count));
  const near = newest().filter((job) => job.memory && octaves(job) <= 2).sort((one, other) => octaves(one) - octaves(other))[0];
  return near ? (near.memory / near.pixels) * count : 0;
}
