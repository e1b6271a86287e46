// Sampler, steps and CFG, with the ranges that the card recommends.
/** @import {Capabilities, Form} from "../service/types.js" */
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { Slider } from "../shell/slider.js";

class Sampling extends Part {
  start() {
    this.follow("capabilities", (capabilities) => capabilities && this.#fill(capabilities));
    this.follow("form", (form) => this.#show(form));
    // Steps, options and a faster quality belong to a sampler.
    this.listen("change", "select", (_, target) =>
      store.edit({ sampler: /** @type {HTMLSelectElement} */ (target).value, steps: null, sampler_options: null, quality: null }),
    );
    this.listen("kz-value", ".steps", ({ detail }) => store.edit({ steps: detail }));
    this.listen("kz-value", ".cfg", ({ detail }) => store.edit({ cfg_scale: detail }));
  }

  /** @param {Capabilities} capabilities */
  #fill({ samplers }) {
    const group = (/** @type {boolean} */ isRecommended, /** @type {string} */ label) =>
      make("optgroup", { label }, ...samplers
        .filter((sampler) => sampler.is_recommended === isRecommended)
        .map(({ name, title }) => make("option", { value: name }, title)));
    this.find("select", HTMLSelectElement).replaceChildren(group(true, "Recommended"), group(false, "Others"));
    this.#show(store.state.form);
  }

  /** @param {Form} form */
  #show(form) {
    const { capabilities } = store.state;
    if (!capabilities) return;
    const { samplers, defaults, limits, recommended_cfg_scale } = capabilities;
    const name = form.sampler ?? defaults.sampler;
    const sampler = samplers.find((choice) => choice.name === name);
    this.find("select", HTMLSelectElement).value = name;
    this.find(".note", HTMLElement).textContent = sampler?.note ?? "";
    const [low, high] = sampler?.recommended_steps ?? [];
    this.find(".steps", Slider).show({ value: form.steps ?? sampler?.default_steps ?? 1, min: 1, max: limits.max_steps, low, high });
    const [lowCfg, highCfg] = recommended_cfg_scale;
    const cfg = form.cfg_scale ?? defaults.cfg_scale;
    this.find(".cfg", Slider).show({ value: cfg, min: 1, max: limits.max_cfg_scale, step: 0.1, low: lowCfg, high: highCfg });
  }
}

customElements.define("kz-sampling", Sampling);
