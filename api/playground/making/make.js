// The button, the number of pictures, and what the dry run says: tokens, cost and time.
/** @import {Plan} from "../service/types.js" */
import { make as submit } from "../state/runs.js";
import { store } from "../state/store.js";
import { duration } from "../shell/duration.js";
import { make, Part } from "../shell/part.js";

class Make extends Part {
  #isBusy = false;

  start() {
    const count = this.find("select", HTMLSelectElement);
    this.follow("capabilities", (capabilities) => {
      const most = capabilities?.limits.max_images ?? 1;
      count.replaceChildren(...Array.from({ length: most }, (_, index) => make("option", { value: String(index + 1) }, String(index + 1))));
      count.value = String(store.state.form.num_images);
      this.#show();
    });
    this.listen("change", "select", () => store.edit({ num_images: Number(count.value) }));
    this.listen("click", "button", () => this.#make());
    document.addEventListener("kz-make", () => this.#make(), { signal: this.signal });
    this.follow("form", ({ num_images }) => {
      count.value = String(num_images);
      this.#show();
    });
    this.follow("plan", () => this.#show());
  }

  async #make() {
    if (this.#isBusy || !store.state.capabilities) return;
    const button = this.find(".primary", HTMLButtonElement);
    this.#isBusy = true;
    button.setAttribute("aria-busy", "true");
    const job = await submit();
    button.removeAttribute("aria-busy");
    this.#isBusy = false;
    if (job) this.#revealResult();
    else document.querySelector("[aria-invalid=true]:not(fieldset)")?.scrollIntoView({ block: "nearest" });
  }

  /** On a phone the picture is below the form. */
  #revealResult() {
    const result = document.getElementById("result");
    if (result && result.getBoundingClientRect().top > innerHeight * 0.7) result.scrollIntoView({ behavior: isCalm() ? "auto" : "smooth", block: "start" });
  }

  #show() {
    const { plan, form } = store.state;
    const line = this.find(".plan", HTMLElement);
    if (plan) line.replaceChildren(...describe(plan));
    else line.replaceChildren(form.prompt.trim() ? "" : "Write a prompt to see what it takes.");
  }
}

/** @param {Plan} plan */
function describe({ tokens, cost, eta_seconds, queue_position }) {
  const parts = [];
  if (tokens?.prompt) {
    const { qwen, t5, limit, is_cut } = tokens.prompt;
    const used = Math.max(qwen, t5);
    parts.push(make("span", { className: "tokens", data: { cut: String(is_cut) }, title: `${qwen} Qwen tokens, ${t5} T5 tokens` }, `${used} of ${limit} tokens`));
  }
  parts.push(make("span", { title: "megapixel-steps" }, `cost ${cost.toPrecision(2)}`));
  if (eta_seconds !== null) parts.push(make("span", {}, `about ${duration(eta_seconds)}`));
  if (queue_position) parts.push(make("span", {}, `${queue_position} ahead`));
  return parts;
}

/** Whether the user wants less motion. */
const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

customElements.define("kz-make", Make);
