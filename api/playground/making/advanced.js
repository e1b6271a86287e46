// Settings that are rarely changed: schedule, options of the sampler, the file.
/** @import {Capabilities} from "../service/types.js" */
import { EMPTY_FORM, store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { showNumber } from "../shell/slider.js";

const METADATA = { full: "all settings", minimal: "only that it is AI-made", none: "nothing" };

class Advanced extends Part {
  #sampler = "";

  start() {
    this.follow("capabilities", (capabilities) => capabilities && this.#fill(capabilities));
    this.follow("form", () => this.#show());
    this.listen("change", "select", (_, target) => take(/** @type {HTMLSelectElement} */ (target)));
    this.listen("input", "[name=image_quality]", (_, target) => {
      const { value } = /** @type {HTMLInputElement} */ (target);
      store.edit({ image_quality: value === "" ? null : Number(value) });
    });
    this.listen("change", ".checks input", (_, target) => {
      const { name, checked } = /** @type {HTMLInputElement} */ (target);
      store.edit({ [name]: checked });
    });
    this.listen("input", ".options input", (_, target) => takeOption(/** @type {HTMLInputElement} */ (target)));
    // A field that was left empty shows the default.
    this.listen("focusout", "[type=number]", () => this.#show());
    this.listen("change", ".options select", (_, target) => takeOption(/** @type {HTMLSelectElement} */ (target)));
    this.listen("click", ".reset", () => {
      const { prompt, negative_prompt, seed } = store.state.form;
      store.set("form", { ...EMPTY_FORM, prompt, negative_prompt, seed });
    });
  }

  /** @param {Capabilities} capabilities */
  #fill({ schedulers, formats, features }) {
    this.#choices("scheduler", schedulers.map(({ name, title, is_recommended }) => [name, is_recommended ? title : `${title} (not recommended)`]));
    this.#choices("image_format", formats.map((name) => [name, name.toUpperCase()]));
    this.#choices("metadata", features.metadata.map((name) => [name, METADATA[name]]));
    this.#show();
  }

  /** @param {string} name @param {[string, string][]} choices */
  #choices(name, choices) {
    const options = choices.map(([value, title]) => make("option", { value }, title));
    this.find(`select[name=${name}]`, HTMLSelectElement).replaceChildren(...options);
  }

  #show() {
    const { form, capabilities } = store.state;
    if (!capabilities) return;
    const scheduler = form.scheduler ?? capabilities.defaults.scheduler;
    const sampler = form.sampler ?? capabilities.defaults.sampler;
    const qualities = capabilities.qualities.filter(({ samplers }) => samplers.includes(sampler));
    this.#choices("quality", qualities.map(({ name, work }) => [name, work === 1 ? name : `${name}: ${Math.round(100 * work)} % of the work`]));
    this.find(".work", HTMLElement).hidden = qualities.length < 2;
    const format = form.image_format ?? "png";
    /** @type {Record<string, string>} */
    const values = { scheduler, image_format: format, metadata: form.metadata ?? "full", quality: form.quality ?? "exact" };
    for (const [name, value] of Object.entries(values)) this.find(`select[name=${name}]`, HTMLSelectElement).value = value;
    const quality = this.find("[name=image_quality]", HTMLInputElement);
    showNumber(quality, form.image_quality ?? 90);
    this.find(".quality", HTMLElement).hidden = format === "png";
    this.find("[name=previews]", HTMLInputElement).checked = form.previews ?? false;
    this.find("[name=deterministic]", HTMLInputElement).checked = form.deterministic ?? false;
    const schedule = capabilities.schedulers.find(({ name }) => name === scheduler);
    this.find(".note", HTMLElement).textContent = schedule?.note ?? "";
    this.find(".change", HTMLElement).textContent = qualities.find(({ name }) => name === values.quality)?.note ?? "";
    this.find("summary .hint", HTMLElement).textContent = `${schedule?.title ?? scheduler}, ${format.toUpperCase()}`;
    this.#options(sampler, capabilities);
  }

  /** @param {string} name @param {Capabilities} capabilities */
  #options(name, { samplers }) {
    const options = samplers.find((sampler) => sampler.name === name)?.options ?? [];
    const fieldset = this.find(".options", HTMLElement);
    fieldset.hidden = !options.length;
    if (this.#sampler !== name) {
      this.#sampler = name;
      this.find(".options div", HTMLElement).replaceChildren(...options.map(control));
    }
    for (const { name: key, default: usual } of options) {
      const input = this.find(`[data-option="${key}"]`, HTMLElement);
      const value = /** @type {Record<string, unknown>} */ (store.state.form.sampler_options ?? {})[key] ?? usual;
      if (input instanceof HTMLInputElement && input.type === "checkbox") input.checked = Boolean(value);
      else if (input instanceof HTMLInputElement) showNumber(input, Number(value));
      else if (input instanceof HTMLSelectElement) input.value = String(value);
    }
  }
}

/** @param {Capabilities["samplers"][number]["options"][number]} option */
function control({ name, type, minimum, maximum, choices, description, default: usual }) {
  const title = `${description} Default: ${usual}.`;
  const data = { option: name, type };
  const label = make("span", {}, name.replaceAll("_", " "));
  if (choices.length) {
    return make("label", { title }, label, make("select", { data }, ...choices.map((value) => make("option", { value }, value.replaceAll("_", " ")))));
  }
  if (type === "boolean") return make("label", { title }, label, make("input", { type: "checkbox", data }));
  const step = type === "integer" ? "1" : "any";
  return make("label", { title }, label, make("input", { type: "number", min: String(minimum ?? ""), max: String(maximum ?? ""), step, data }));
}

/** @param {HTMLSelectElement} select */
function take({ name, value }) {
  if (name) store.edit({ [name]: value });
}

/** @param {HTMLInputElement | HTMLSelectElement} input */
function takeOption(input) {
  const { option = "", type } = input.dataset;
  const options = { .../** @type {Record<string, any>} */ (store.state.form.sampler_options ?? {}) };
  if (input instanceof HTMLInputElement && type === "boolean") options[option] = input.checked;
  else if (type === "string") options[option] = input.value;
  else if (input.value === "") delete options[option];
  else options[option] = Number(input.value);
  store.edit({ sampler_options: Object.keys(options).length ? options : null });
}

customElements.define("kz-advanced", Advanced);
