// Messages beside the fields that they concern: warnings of the dry run, and errors.
/** @import {Note, Plan} from "../service/types.js" */
import { store } from "./store.js";

/** Where the warnings of a dry run belong. All others are about the prompt. @type {Record<string, string>} */
const FIELDS = {
  steps_not_recommended: "steps",
  scheduler_not_recommended: "scheduler",
  cfg_scale_not_recommended: "cfg_scale",
  size_not_trained: "resolution",
  picture_fitted: "init_image",
  lora_other_base: "loras",
  lora_other_depth: "loras",
  lora_partial: "loras",
  lora_base_unknown: "loras",
};

/** What was refused, until the form changes. @type {{form: unknown, notes: Note[]}} */
let refused = { form: null, notes: [] };

/** @param {Plan} plan */
export function showWarnings(plan) {
  const kept = refused.form === store.state.form ? refused.notes : [];
  const notes = plan.warnings.map(({ code, detail }) => ({ field: fieldOf(code, detail), text: detail, isError: false, code }));
  store.set("notes", [...kept, ...notes]);
}

/** The form is refused: a dry run that ends later does not hide why. @param {import("../service/api.js").Problem} problem */
export function showRefusal(problem) {
  showProblem(problem);
  refused = { form: store.state.form, notes: store.state.notes };
}

/** @param {string} code @param {string} detail */
function fieldOf(code, detail) {
  if (FIELDS[code]) return FIELDS[code];
  return /\bnegative[_ ]prompt\b/.test(detail) ? "negative_prompt" : "prompt";
}

/** @param {import("../service/api.js").Problem} problem */
export function showProblem(problem) {
  const { code } = problem;
  /** @type {Note[]} */
  const notes = problem.errors.map(({ pointer, detail }) => ({
    field: pointer.split("/")[1] || "request", text: detail, isError: true, code,
  }));
  if (!notes.length) {
    const text = [problem.title, problem.message].filter((part, place, all) => part && all.indexOf(part) === place).join(" ");
    notes.push({ field: "request", text, isError: true, code });
  }
  store.set("notes", notes);
}
