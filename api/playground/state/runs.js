// The jobs that the page watches.
/** @import {Job, JobEvent, Run} from "../service/types.js" */
import * as api from "../service/api.js";
import { eventsOf } from "../service/events.js";
import { randomSeed, requestOf } from "./form.js";
import { showProblem } from "./notes.js";
import { store } from "./store.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const QUEUE_MS = 2000;

/** What ends the watching of a job. @type {Map<string, AbortController>} */
const lives = new Map();

/** Whether a job has ended. @param {Pick<Job, "status">} job */
export const hasEnded = (job) => ENDED.has(job.status);

/** Submit the form, or another request, and watch its job. The job, or null if it was refused. */
export async function make(request = requestOf(store.state.form)) {
  try {
    const job = await api.submit(request);
    store.set("notes", store.state.notes.filter((note) => !note.isError));
    watch(job);
    show(job.id);
    if (!store.state.view.isSeedLocked) store.edit({ seed: randomSeed() });
    return job;
  } catch (error) {
    showProblem(api.problemOf(error));
    return null;
  }
}

/** @param {string} id */
export const show = (id) => store.set("shown", id);

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
    const { items } = await api.jobs({ limit: 20 });
    for (const job of [...items].reverse()) if (!hasEnded(job)) watch(job);
    const newest = items.find((job) => !hasEnded(job)) ?? items.find((job) => job.status === "succeeded");
    if (!newest || store.state.shown) return;
    if (hasEnded(newest)) add(newest);
    show(newest.id);
  } catch {
    // The page works without: the gallery says what is wrong.
  }
}

/** Forget all jobs, as when the key changes. */
export function forget() {
  for (const life of lives.values()) life.abort();
  lives.clear();
  store.set("shown", null);
  store.set("viewing", null);
  store.set("runs", new Map());
}

/** Show an older job, such as one of the gallery. @param {Job} job */
export function open(job) {
  if (!store.state.runs.has(job.id)) add(job);
  show(job.id);
}

/** Follow a job to its end. @param {Job} job */
export function watch(job) {
  if (store.state.runs.has(job.id)) return;
  add(job);
  const life = new AbortController();
  lives.set(job.id, life);
  follow(job.id, life.signal)
    .catch((error) => life.signal.aborted || update(job.id, { note: api.problemOf(error).message }))
    .finally(() => {
      life.abort();
      lives.delete(job.id);
    });
  askForPlace(job.id, life.signal).catch(() => {});
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
  if (run) store.set("runs", new Map(store.state.runs).set(id, { ...run, ...fields }));
}

/** @param {string} id @param {AbortSignal} signal */
async function follow(id, signal) {
  for await (const event of eventsOf(id, signal)) apply(id, event);
  const job = await lastState(id);
  update(id, { job, images: [...job.images], eta: null });
  store.set("finished", job);
}

/** The job at its end; a service that has just restarted may need a moment. @param {string} id */
async function lastState(id) {
  for (;;) {
    try {
      return await api.job(id);
    } catch (error) {
      const { status } = api.problemOf(error);
      if (status >= 400 && status < 500 && status !== 429) throw error;
      await api.pause(1000);
    }
  }
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
    await api.pause(QUEUE_MS, signal);
    if (store.state.runs.get(id)?.job.status !== "queued") continue;
    const job = await api.job(id, signal).catch(() => null);
    if (job?.status === "queued" && !signal.aborted) update(id, { job, eta: job.eta_seconds });
  }
}
