// <kz-slider label="Steps" field="steps">: a number and a track that shows its recommended range.
import { Part } from "./part.js";

/** @typedef {{value: number, min: number, max: number, step?: number, low?: number, high?: number}} Setup */

export class Slider extends Part {
  #value = "";

  start() {
    this.find("span", HTMLSpanElement).textContent = this.getAttribute("label");
    const field = this.getAttribute("field");
    if (field) this.#number.dataset.field = field;
    this.listen("input", "input", (_, target) => this.#take(/** @type {HTMLInputElement} */ (target)));
    this.listen("focusout", "[type=number]", () => (this.#number.value ||= this.#value));
  }

  get #number() {
    return this.find("[type=number]", HTMLInputElement);
  }

  get #range() {
    return this.find("[type=range]", HTMLInputElement);
  }

  /** @param {HTMLInputElement} input */
  #take(input) {
    const other = input === this.#number ? this.#range : this.#number;
    const value = input.value === "" ? null : Number(input.value);
    if (value !== null) this.#value = other.value = input.value;
    this.dispatchEvent(new CustomEvent("kz-value", { detail: value, bubbles: true }));
  }

  /** Show a value within its limits; the range from `low` to `high` is recommended. @param {Setup} setup */
  show({ value, min, max, step = 1, low, high }) {
    this.#value = String(value);
    for (const input of [this.#range, this.#number]) {
      input.min = String(min);
      input.max = String(max);
      input.step = String(step);
      showNumber(input, value);
    }
    const percent = (/** @type {number} */ at) => `${((at - min) / (max - min)) * 100}%`;
    this.#range.style.setProperty("--low", percent(low ?? min));
    this.#range.style.setProperty("--high", percent(high ?? min));
    this.title = low === undefined ? "" : `recommended: ${low} to ${high}`;
  }
}

/**
 * Show a number; do not disturb somebody who types "1" on the way to "12", or nothing on the way to another number.
 * @param {HTMLInputElement} input @param {number} value
 */
export function showNumber(input, value) {
  const isTyping = input === document.activeElement && (input.value === "" || Number(input.value) === value);
  if (!isTyping) input.value = String(value);
}

customElements.define("kz-slider", Slider);
