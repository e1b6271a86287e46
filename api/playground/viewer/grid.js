// A grid of pictures that differ in one setting or two. Each cell is a job.
/** @import {GenerationRequest, Job} from "../service/types.js" */
/** @import {Axis} from "./axes.js" */
import * as api from "../service/api.js";
import { pictureUrl } from "../service/pictures.js";
import { hasEnded, watch } from "../state/runs.js";
import { store } from "../state/store.js";
import { collection } from "../gallery/collection.js";
import { make, Part } from "../shell/part.js";

/** @typedef {{axis: Axis, values: string[]}} Chosen */

export class Grid extends Part {
  #base;
  #x;
  #y;
  /** Jobs that have not ended, by id. @type {Map<string, HTMLElement>} */
  #waiting = new Map();

  /** @param {Partial<GenerationRequest>} [base] @param {Chosen} [x] @param {Chosen} [y] */
  constructor(base = {}, x, y) {
    super();
    this.#base = base;
    this.#x = x;
    this.#y = y;
  }

  start() {
    if (!this.#x || this.children.length) return;
    const cells = this.#table(this.#x, this.#y);
    this.listen("click", ".open", (_, target) => this.#open(target.dataset.id ?? ""));
    this.#submit(cells).catch(() => {});
    this.follow("runs", (runs) => {
      for (const [id, cell] of this.#waiting) {
        const run = runs.get(id);
        if (run) this.#update(cell, run.job);
      }
    });
  }

  /** @param {Chosen} x @param {Chosen} [y] */
  #table(x, y) {
    /** @type {{cell: HTMLElement, request: Partial<GenerationRequest>, label: string}[]} */
    const cells = [];
    const head = make("tr", {}, ...(y ? [make("td", {}, `${y.axis.label} ↓  ${x.axis.label} →`)] : []), ...x.values.map((value) => header("col", `${y ? "" : `${x.axis.label} `}${value}`)));
    const rows = (y?.values ?? [""]).map((down) => {
      const tds = x.values.map((across) => {
        const cell = make("td", { className: "cell" }, make("span", { className: "hint" }, "…"));
        const request = x.axis.apply(this.#base, across);
        cells.push({ cell, request: y ? y.axis.apply(request, down) : request, label: [`${x.axis.label} ${across}`, y && `${y.axis.label} ${down}`].filter(Boolean).join(", ") });
        return cell;
      });
      return make("tr", {}, ...(y ? [header("row", down)] : []), ...tds);
    });
    this.style.setProperty("--columns", String(x.values.length));
    this.append(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    return cells;
  }

  /** @param {{cell: HTMLElement, request: Partial<GenerationRequest>, label: string}[]} cells */
  async #submit(cells) {
    for (const { cell, request, label } of cells) {
      cell.dataset.label = label;
      try {
        const job = await this.#admitted(request);
        this.#waiting.set(job.id, cell);
        fill(cell, "waiting");
        watch(job); // also when the grid is left: its pictures come into the gallery
      } catch (error) {
        if (this.signal.aborted) return;
        fill(cell, api.problemOf(error).message);
      }
    }
  }

  /** Submit; wait while the key's limits or the queue ask for it. @param {Partial<GenerationRequest>} request @returns {Promise<Job>} */
  async #admitted(request) {
    for (;;) {
      this.signal.throwIfAborted();
      try {
        return await api.submit(request);
      } catch (error) {
        const { status, retryAfter } = api.problemOf(error);
        const isBusy = status === 429 || (status === 503 && retryAfter > 0);
        if (!isBusy || retryAfter > 60) throw error;
        await api.pause(1000 * Math.max(1, retryAfter), this.signal);
      }
    }
  }

  /** @param {HTMLElement} cell @param {Job} job */
  async #update(cell, job) {
    if (job.status === "running") fill(cell, `step ${job.progress.step} of ${job.progress.steps}`);
    if (!hasEnded(job)) return;
    this.#waiting.delete(job.id);
    if (job.status !== "succeeded") return fill(cell, job.error?.detail ?? job.status);
    const source = await pictureUrl(job, 0).catch(() => "");
    const picture = make("img", { src: source, alt: "", decoding: "async" });
    cell.replaceChildren(make("button", { type: "button", className: "open", data: { id: job.id }, aria: { label: `${cell.dataset.label}: open` } }, picture));
  }

  /** @param {string} id */
  #open(id) {
    const entry = collection.entries.find(({ job }) => job.id === id);
    if (entry) store.set("viewing", entry);
  }
}

/** @param {string} scope @param {string} text */
function header(scope, text) {
  return make("th", { scope }, text);
}

/** @param {HTMLElement} cell @param {string} text */
function fill(cell, text) {
  const hint = cell.querySelector(".hint");
  if (hint && hint.textContent !== text) hint.textContent = text;
}

customElements.define("kz-grid", Grid);
