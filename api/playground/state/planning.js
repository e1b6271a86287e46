// Keeps the dry run up to date with the form.
import { dryRun, problemOf } from "../service/api.js";
import { requestOf } from "./form.js";
import { showProblem, showWarnings } from "./notes.js";
import { light } from "./stand_ins.js";
import { store } from "./store.js";

const TYPING_PAUSE = 350;

/** @type {number | undefined} */
let timer;
let pausedUntil = 0;
let call = new AbortController();

/** Ask for the plan of the form when the user pauses. */
export function startPlanning() {
  store.on("form", schedule);
  store.on("capabilities", schedule);
  store.on("isOffline", (isOffline) => isOffline || schedule());
}

function schedule() {
  clearTimeout(timer);
  call.abort();
  if (!store.state.capabilities) return;
  if (!store.state.form.prompt.trim()) {
    store.set("plan", null);
    store.set("notes", []);
    return;
  }
  timer = setTimeout(ask, Math.max(TYPING_PAUSE, pausedUntil - Date.now()));
}

async function ask() {
  call = new AbortController();
  const { signal } = call;
  try {
    const { plan, pause } = await dryRun(light(requestOf(store.state.form)), signal);
    if (signal.aborted) return;
    pausedUntil = Date.now() + pause * 1000;
    store.set("plan", plan);
    showWarnings(plan);
  } catch (error) {
    if (signal.aborted) return;
    const problem = problemOf(error);
    if (problem.status === 429) pausedUntil = Date.now() + Math.max(1, problem.retryAfter) * 1000;
    store.set("plan", null);
    // A busy service matters only when a picture is made.
    if (problem.status !== 429) showProblem(problem);
  }
}
