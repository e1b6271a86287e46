// The second pass: enlarges the picture and samples again.
/** @import {Form} from "../service/types.js" */
import { sizeOf } from "../state/form.js";
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { Slider } from "../shell/slider.js";

const FIRST_SCALE = 1.5;

class Hires extends Part {
  /** The settings, which are in the page only while there is a second pass. @type {HTMLElement | null} */
  #settings = null;

  start() {
    this.#settings ??= this.find(".pair", HTMLElement);
    this.follow("capabilities", (capabilities) => {
      const names = capabilities?.features.upscalers ?? [];
      this.hidden = !names.length;
      this.#settings?.querySelector("select")?.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
      this.#show(store.state.form);
    });
    this.follow("form", (form) => this.#show(form));
    this.listen("change", "[name=on]", (_, target) => {
      const isOn = /** @type {HTMLInputElement} */ (target).checked;
      store.edit({ hires: isOn ? { scale: FIRST_SCALE, upscaler: "lanczos" } : null });
    });
    this.listen("change", "select", (_, target) => {
      const { value } = /** @type {HTMLSelectElement} */ (target);
      // Enlarged latents are blurred: the second pass must be free to redraw them.
      const strength = value === "latent" ? Math.max(0.5, store.state.form.hires?.strength ?? 0) : store.state.form.hires?.strength;
      this.#edit({ upscaler: /** @type {any} */ (value), strength });
    });
    this.listen("kz-value", ".scale", ({ detail }) => detail && this.#edit({ scale: detail }));
    this.listen("kz-value", ".strength", ({ detail }) => this.#edit({ strength: detail }));
    this.listen("kz-value", ".steps", ({ detail }) => this.#edit({ steps: detail }));
  }

  /** @param {Partial<NonNullable<Form["hires"]>>} fields */
  #edit(fields) {
    const { hires } = store.state.form;
    if (hires) store.edit({ hires: { ...hires, ...fields } });
  }

  /** @param {Form} form */
  #show(form) {
    const { capabilities } = store.state;
    if (!capabilities) return;
    const { hires } = form;
    const { defaults, limits, samplers } = capabilities;
    this.find("[name=on]", HTMLInputElement).checked = Boolean(hires);
    if (!hires) this.#settings?.remove();
    else if (this.#settings && !this.#settings.isConnected) this.find("details", HTMLElement).append(this.#settings);
    this.find("summary .hint", HTMLElement).textContent = hires ? `${hires.scale} ×, ${size(form, hires.scale, limits.multiple)}` : "none";
    if (!hires) return;
    const most = Math.max(1.1, Math.sqrt(limits.max_pixels / sizeOf(form).reduce((a, b) => a * b)));
    this.find(".scale", Slider).show({ value: hires.scale, min: 1.05, max: Math.min(8, Math.floor(most * 20) / 20), step: 0.05 });
    const sampler = samplers.find(({ name }) => name === (form.sampler ?? defaults.sampler));
    this.find(".steps", Slider).show({ value: hires.steps ?? form.steps ?? sampler?.default_steps ?? 1, min: 1, max: limits.max_steps });
    this.find(".strength", Slider).show({ value: hires.strength ?? defaults.hires_strength ?? 0.5, min: 0, max: 1, step: 0.05 });
    this.find("select", HTMLSelectElement).value = hires.upscaler ?? "lanczos";
  }
}

/** The size as the service rounds it. @param {Form} form @param {number} scale @param {number} multiple */
function size(form, scale, multiple) {
  return sizeOf(form).map((side) => Math.round((side * scale) / multiple) * multiple).join(" × ");
}

customElements.define("kz-hires", Hires);
