// The size: the card's presets, drawn to shape, or a free one.
/** @import {Capabilities} from "../service/types.js" */
import { sizeOf } from "../state/form.js";
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";

const FREE = "free";
/** Side of the largest preset's drawing, in CSS pixels. */
const DRAWN = 34;

class Size extends Part {
  #isFree = false;

  start() {
    this.follow("capabilities", (capabilities) => capabilities && this.#draw(capabilities));
    this.follow("form", () => this.#show());
    this.listen("change", "[type=radio]", (_, target) => this.#choose(/** @type {HTMLInputElement} */ (target).value));
    this.listen("input", ".free input", () => this.#take());
    this.listen("click", ".free button", () => {
      const [width, height] = sizeOf(store.state.form);
      store.edit({ resolution: `${height}x${width}` });
    });
  }

  /** @param {Capabilities} capabilities */
  #draw({ resolutions, limits }) {
    const largest = Math.max(...resolutions.map(({ width, height }) => Math.max(width, height)));
    const tiles = resolutions.map(({ name, width, height }) =>
      tile(name, name.replaceAll("_", " "), `${width} × ${height}`, [(width / largest) * DRAWN, (height / largest) * DRAWN]),
    );
    this.find(".tiles", HTMLElement).replaceChildren(...tiles, tile(FREE, "free", "W × H", [DRAWN, DRAWN * 0.7]));
    for (const input of this.querySelectorAll(".free input")) {
      Object.assign(input, { min: limits.min_side, max: limits.max_side, step: limits.multiple });
    }
    this.find(".free .hint", HTMLElement).textContent =
      `multiples of ${limits.multiple}, ${limits.min_side} to ${limits.max_side}, together ${(limits.max_pixels / 1e6).toPrecision(2)} MP`;
    this.#show();
  }

  /** @param {string} value */
  #choose(value) {
    this.#isFree = value === FREE;
    const [width, height] = sizeOf(store.state.form);
    store.edit({ resolution: this.#isFree ? `${width}x${height}` : value });
    this.#show();
  }

  #take() {
    const [width, height] = ["width", "height"].map((name) => this.find(`[name=${name}]`, HTMLInputElement).value);
    store.edit({ resolution: `${width || 0}x${height || 0}` });
  }

  #show() {
    const { form, capabilities } = store.state;
    if (!capabilities) return;
    const name = form.resolution ?? capabilities.defaults.resolution;
    this.#isFree = !capabilities.resolutions.some((preset) => preset.name === name);
    for (const radio of this.querySelectorAll("input[type=radio]")) {
      if (radio instanceof HTMLInputElement) radio.checked = radio.value === (this.#isFree ? FREE : name);
    }
    this.find(".free", HTMLElement).hidden = !this.#isFree;
    const [width, height] = sizeOf(form);
    for (const [field, value] of [["width", width], ["height", height]]) {
      const input = this.find(`[name=${field}]`, HTMLInputElement);
      if (input !== document.activeElement || Number(input.value) !== value) input.value = String(value || "");
    }
  }
}

/** @param {string} value @param {string} title @param {string} hint @param {[number, number]} shape */
function tile(value, title, hint, [width, height]) {
  const drawing = make("span", { className: "shape", aria: { hidden: "true" } });
  Object.assign(drawing.style, { width: `${width}px`, height: `${height}px` });
  const frame = make("span", { className: "frame", aria: { hidden: "true" } }, drawing);
  return make(
    "label",
    { className: "tile", data: { value } },
    make("input", { type: "radio", name: "size", value }),
    frame,
    make("span", { className: "name" }, title),
    make("span", { className: "hint" }, hint),
  );
}

customElements.define("kz-size", Size);
