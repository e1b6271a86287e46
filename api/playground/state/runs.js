// The jobs that the page watches.
/** @import {Job, JobEvent, Run} from "../service/types.js" */
import * as api from "../service/api.js";
import { eventsOf } from "../service/events.js";
import { randomSeed, requestOf } from "./form.js";
import { showRefusal } from "./notes.js";
import { store } from "./store.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const POLL_MS = 2000;
/** Jobs in an answer, at most. */
const MOST = 100;

/** Ends the stream of the job that is shown. Browsers open six connections to a host, in all tabs: others are asked for. */
let stream = new AbortController();
let isPolling = false;

/** Whether a job has ended. @param {Pick<Job, "status">} job */
export const hasEnded = (job) => ENDED.has(job.status);

/** Submit the form, or another request, and watch its job. The job, or null if it was refused. */
export async function make(request = requestOf(store.state.form)) {
  try {
    const job = await api.submit(request);
    store.set("notes", store.state.notes.filter((note) => !note.isError));
    open(job);
    if (!store.state.view.isSeedLocked) store.edit({ seed: randomSeed() });
    return job;
  } catch (error) {
    showRefusal(api.problemOf(error));
    return null;
  }
}

/** Show a job that is watched, and stream its events. @param {string} id */
export function show(id) {
  store.set("shown", id);
  stream.abort();
  stream = new AbortController();
  const { signal } = stream;
  const run = store.state.runs.get(id);
  if (run && !hasEnded(run.job)) {
    follow(id, signal).catch((error) => signal.aborted || update(id, { note: api.problemOf(error).message }));
  }
  poll();
}

/** Show a job, such as one of the gallery. @param {Job} job */
export function open(job) {
  watch(job);
  show(job.id);
}

/** Watch a job to its end. @param {Job} job */
export function watch(job) {
  if (!store.state.runs.has(job.id)) add(job);
  poll();
}

/** Cancel a job; it may have ended meanwhile. @param {string} id */
export async function cancel(id) {
  try {
    update(id, { job: await api.cancel(id) });
  } catch (error) {
    const problem = api.problemOf(error);
    if (problem.status !== 409) update(id, { note: problem.message });
  }
}

/** Find the jobs in progress, for example after a reload, and show the newest job. */
export async function resume() {
  try {
    /** @type {Job[]} */
    const items = [];
    /** @type {string | null | undefined} */
    let cursor;
    do {
      const page = await api.jobs({ cursor, limit: MOST });
      items.push(...page.items);
      cursor = page.items.every(hasEnded) ? null : page.next;
    } while (cursor);
    for (const job of [...items].reverse()) if (!hasEnded(job)) watch(job);
    const newest = items.find((job) => !hasEnded(job)) ?? items.find((job) => job.status === "succeeded");
    if (newest && !store.state.shown) open(newest);
  } catch {
    // The page works without: the gallery says what is wrong.
  }
}

/** Forget all jobs, as when the key changes. */
export function forget() {
  stream.abort();
  store.set("shown", null);
  store.set("viewing", null);
  store.set("comparing", null);
  store.set("runs", new Map());
}

/** @param {Job} job */
function add(job) {
  /** @type {Run} */
  const run = { job, eta: job.eta_seconds, previews: [], images: [...job.images], note: "" };
  store.set("runs", new Map(store.state.runs).set(job.id, run));
}

/** @param {string} id @param {Partial<Run>} fields */
function update(id, fields) {
  const run = store.state.runs.get(id);
  if (!run) return;
  store.set("runs", new Map(store.state.runs).set(id, { ...run, ...fields }));
  const isNews = fields.job && hasEnded(fields.job) && !hasEnded(run.job);
  if (isNews && fields.job) store.set("finished", fields.job);
}

/** The state of a job as the service gives it. @param {Job} job */
function take(job) {
  update(job.id, { job, images: [...job.images], eta: hasEnded(job) ? null : job.eta_seconds });
}

/** Apply the events of a job, then its last state. @param {string} id @param {AbortSignal} signal */
async function follow(id, signal) {
  askForPlace(id, signal).catch(() => {});
  for await (const event of eventsOf(id, signal)) apply(id, event);
  for (;;) {
    try {
      return take(await api.job(id, signal));
    } catch (error) {
      const { status } = api.problemOf(error);
      if (signal.aborted || (status >= 400 && status < 500 && status !== 429)) throw error;
      await api.pause(POLL_MS, signal); // the service may have just restarted
    }
  }
}

/** Ask for the jobs in progress that are not shown: for all at once, then for those that are not among the newest. */
async function poll() {
  const others = () => [...store.state.runs.values()].filter(({ job }) => !hasEnded(job) && job.id !== store.state.shown);
  if (isPolling || !others().length) return;
  isPolling = true;
  while (others().length) {
    await api.pause(POLL_MS);
    const newest = await api.newest(MOST).catch(() => null);
    if (!newest) continue;
    for (const { job } of others()) {
      const known = newest.find(({ id }) => id === job.id);
      if (known) {
        take(known);
        continue;
      }
      const found = await api.job(job.id).catch(api.problemOf);
      if ("images" in found) take(found);
      else if (found.status === 404 || found.status === 410) drop(job.id);
    }
  }
  isPolling = false;
}

/** @param {string} id */
function drop(id) {
  const runs = new Map(store.state.runs);
  runs.delete(id);
  store.set("runs", runs);
}

/** @param {string} id @param {JobEvent} event */
function apply(id, { name, data }) {
  const run = store.state.runs.get(id);
  if (!run || hasEnded(run.job)) return;
  const { job } = run;
  if (name === "queued") update(id, { job: { ...job, status: "queued" } });
  else if (name === "started") update(id, { job: { ...job, status: "running" }, note: "" });
  else if (name === "progress") {
    const progress = { step: data.step, steps: data.steps, fraction: data.step / data.steps };
    update(id, { job: { ...job, status: "running", progress }, eta: data.eta_seconds ?? null });
  } else if (name === "preview") {
    const previews = [...run.previews];
    previews[data.index ?? 0] = data.image;
    update(id, { previews });
  } else if (name === "image") {
    const images = [...run.images.filter((image) => image.seed !== data.seed), /** @type {any} */ (data)];
    update(id, { images });
  } else if (name === "retrying") {
    update(id, { job: { ...job, status: "queued" }, note: `Trying again: ${data.reason}.` });
  }
}

/** Events do not tell the place in the queue: ask while the job waits. @param {string} id @param {AbortSignal} signal */
async function askForPlace(id, signal) {
  for (;;) {
    await api.pause(POLL_MS, signal);
    const status = store.state.runs.get(id)?.job.status;
    if (status !== "queued") continue;
    const job = await api.job(id, signal).catch(() => null);
    if (job?.status === "queued") take(job);
  }
}
