// The job that is shown: its place in the queue, its progress with previews, its pictures.
/** @import {Job, Run} from "../service/types.js" */
import { pictureUrl } from "../service/pictures.js";
import { useRequest } from "../state/form.js";
import { cancel, hasEnded } from "../state/runs.js";
import { store } from "../state/store.js";
import { duration } from "../shell/duration.js";
import { make, Part } from "../shell/part.js";

const TITLE = document.title;

class RunView extends Part {
  #id = "";

  start() {
    this.follow("shown", () => this.#show());
    this.follow("runs", () => this.#show());
    this.follow("capabilities", (capabilities) => {
      this.find(".example", HTMLElement).textContent = capabilities?.prompting.example ?? "";
    });
    this.listen("click", ".try", () => store.edit({ prompt: store.state.capabilities?.prompting.example ?? "" }));
    this.listen("click", ".cancel", () => this.#id && cancel(this.#id));
    this.listen("click", ".use", () => this.#run && useRequest(this.#run.job.request));
    this.listen("click", ".keep-seed", () => {
      if (!this.#run) return;
      store.edit({ seed: this.#run.job.request.seed });
      store.arrange({ isSeedLocked: true });
    });
    this.listen("click", ".picture", (_, target) => {
      if (this.#run && hasEnded(this.#run.job)) store.set("viewing", { job: this.#run.job, index: Number(target.dataset.index) });
    });
  }

  get #run() {
    return store.state.runs.get(this.#id);
  }

  #show() {
    this.#id = store.state.shown ?? "";
    const run = this.#run;
    this.find(".empty", HTMLElement).hidden = run !== undefined;
    this.find(".watch", HTMLElement).hidden = !run || hasEnded(run.job);
    this.find(".facts", HTMLElement).hidden = run?.job.status !== "succeeded";
    this.find(".failure", HTMLElement).hidden = true;
    this.find(".pictures", HTMLElement).hidden = !run;
    if (!run) return;
    this.#pictures(run);
    this.#progress(run);
    this.#end(run);
  }

  /** One place for each picture, from the first preview on. @param {Run} run */
  #pictures({ job, previews, images }) {
    const frames = this.find(".pictures", HTMLElement);
    const { num_images, width, height, seed, hires } = job.request;
    const [shownWidth, shownHeight] = hires ? [hires.width, hires.height] : [width, height];
    if (frames.dataset.job !== job.id) {
      frames.dataset.job = job.id;
      frames.replaceChildren(...Array.from({ length: num_images }, (_, index) => frame(index, shownWidth, shownHeight)));
    }
    frames.dataset.count = String(num_images);
    for (const [index, element] of [...frames.children].entries()) {
      const image = images.find((one) => one.seed === seed + index);
      const picture = element.querySelector("img");
      if (!(picture instanceof HTMLImageElement)) continue;
      if (image && picture.dataset.kind !== "image") this.#load(picture, job, images.indexOf(image), image.seed);
      else if (!image && previews[index]) show(picture, previews[index], "preview", "Preview");
      /** @type {HTMLElement} */ (element).dataset.state = image ? "done" : previews[index] ? "preview" : job.status;
    }
  }

  /** @param {HTMLImageElement} picture @param {Job} job @param {number} index @param {number} seed */
  async #load(picture, job, index, seed) {
    if (!hasEnded(job)) return; // its images can be read as soon as it has ended
    picture.dataset.kind = "image";
    const source = await pictureUrl(job, index).catch(() => "");
    if (source) show(picture, source, "image", `Picture with seed ${seed}: ${job.request.prompt}`);
    else delete picture.dataset.kind;
  }

  /** @param {Run} run */
  #progress({ job, eta, note }) {
    const bar = this.find("progress", HTMLProgressElement);
    const { step, steps, fraction } = job.progress;
    const isRunning = job.status === "running";
    if (isRunning && step) bar.value = fraction;
    else bar.removeAttribute("value");
    bar.setAttribute("aria-label", "Progress");
    const place = job.queue_position ? `${job.queue_position} ahead in the queue` : "Next in the queue";
    const state = isRunning ? (step ? `Step ${step} of ${steps}` : "Starting") : place;
    const left = eta === null ? "" : `${duration(eta)} left`;
    setText(this.find(".state", HTMLElement), [state, left, note].filter(Boolean).join(" · "));
    document.title = hasEnded(job) ? TITLE : `${isRunning ? `${Math.round(fraction * 100)} %` : "…"} · ${TITLE}`;
  }

  /** @param {Run} run */
  #end({ job, note }) {
    const failure = this.find(".failure", HTMLElement);
    const reason = job.status === "cancelled" ? "Cancelled." : job.error ? [job.error.title, job.error.detail].filter(Boolean).join(": ") : note;
    failure.hidden = !hasEnded(job) ? !note : job.status === "succeeded";
    setText(failure, failure.hidden ? "" : reason);
    if (job.status !== "succeeded") return;
    const { request, timings } = job;
    const { width, height } = request.hires ?? request;
    const seconds = Object.entries(timings).reduce((sum, [name, value]) => sum + (name === "queued" ? 0 : (value ?? 0)), 0);
    const facts = [`seed ${request.seed}`, `${width} × ${height}`, request.sampler, `${request.steps} steps`, `CFG ${request.cfg_scale}`, duration(seconds)];
    this.find(".settings", HTMLElement).replaceChildren(...facts.map((fact) => make("span", {}, fact)));
  }
}

/** @param {number} index @param {number} width @param {number} height */
function frame(index, width, height) {
  const picture = make("img", { alt: "", width, height, decoding: "async" });
  const button = make("button", { type: "button", className: "picture", data: { index: String(index) }, aria: { label: `Picture ${index + 1}: open` } }, picture);
  button.style.setProperty("--ratio", String(width / height));
  button.style.setProperty("--width", `${width}px`);
  return button;
}

/** @param {HTMLImageElement} picture @param {string} source @param {string} kind @param {string} alt */
function show(picture, source, kind, alt) {
  if (picture.src === source) return;
  Object.assign(picture, { src: source, alt });
  picture.dataset.kind = kind;
}

/** Change a text only if it differs: screen readers read changes. @param {HTMLElement} element @param {string} text */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

customElements.define("kz-run", RunView);
