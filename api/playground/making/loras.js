// The LoRAs of the service's folder, each with its weight and its trigger words.
/** @import {Capabilities, Form} from "../service/types.js" */
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";

const MOST = 8;

class Loras extends Part {
  start() {
    this.follow("capabilities", (capabilities) => capabilities && this.#fill(capabilities));
    this.follow("form", (form) => this.#show(form));
    this.listen("change", "select", (_, target) => {
      const select = /** @type {HTMLSelectElement} */ (target);
      this.#change([...store.state.form.loras, { name: select.value, weight: 1 }]);
    });
    this.listen("input", "[type=number]", (_, target) => {
      const weight = Number(/** @type {HTMLInputElement} */ (target).value);
      this.#change(store.state.form.loras.map((lora) => (lora.name === target.dataset.name ? { ...lora, weight } : lora)));
    });
    this.listen("click", ".remove", (_, target) =>
      this.#change(store.state.form.loras.filter((lora) => lora.name !== target.dataset.name)),
    );
    this.listen("click", ".trigger", (_, target) => addWords(target.textContent ?? ""));
  }

  /** @param {Form["loras"]} loras */
  #change(loras) {
    store.edit({ loras });
  }

  /** @param {Capabilities} capabilities */
  #fill({ loras, refused_loras }) {
    // Without a folder of LoRAs there is nothing to choose.
    this.hidden = !loras.length && !refused_loras.length;
    const refused = refused_loras.map(({ name, reason }) => make("li", {}, make("strong", {}, name), ` cannot be used: ${reason}`));
    this.find(".refused", HTMLElement).replaceChildren(...refused);
    this.#show(store.state.form);
  }

  /** @param {Form} form */
  #show({ loras }) {
    const { capabilities } = store.state;
    if (!capabilities) return;
    this.find("summary .hint", HTMLElement).textContent = loras.map(({ name, weight }) => `${name} ${weight}`).join(", ") || "none";
    const free = capabilities.loras.filter(({ name }) => !loras.some((lora) => lora.name === name));
    const select = this.find("select", HTMLSelectElement);
    select.replaceChildren(make("option", { value: "", disabled: true, selected: true }, free.length ? "choose …" : "no others"),
      ...free.map(({ name }) => make("option", { value: name }, name)));
    select.disabled = !free.length || loras.length >= MOST;
    this.#rows(loras, capabilities);
  }

  /** @param {Form["loras"]} loras @param {Capabilities} capabilities */
  #rows(loras, capabilities) {
    const list = this.find(".chosen", HTMLUListElement);
    const names = [...list.children].map((row) => /** @type {HTMLElement} */ (row).dataset.name);
    // Rows stay while a weight is typed.
    if (names.join("\n") !== loras.map(({ name }) => name).join("\n")) {
      list.replaceChildren(...loras.map(({ name }) => row(name, capabilities)));
    }
    loras.forEach(({ weight }, place) => {
      const input = list.children[place]?.querySelector("input");
      if (input && Number(input.value) !== weight) input.value = String(weight);
    });
  }
}

/** @param {string} name @param {Capabilities} capabilities */
function row(name, { loras }) {
  const lora = loras.find((choice) => choice.name === name);
  const weight = make("input", { type: "number", min: "-4", max: "4", step: "0.05", data: { name }, aria: { label: `Weight of ${name}` } });
  const remove = make("button", { type: "button", className: "remove quiet", data: { name }, aria: { label: `Remove ${name}` } }, "×");
  const words = (lora?.trigger_words ?? []).map((word) => make("button", { type: "button", className: "trigger", title: "Add to the prompt" }, word));
  const item = make("li", { data: { name } }, make("span", { className: "name", title: lora?.method ?? "" }, name), weight, remove);
  if (words.length) item.append(make("p", { className: "words" }, ...words));
  if (!lora) item.append(make("p", { className: "hint" }, "This service does not have it."));
  return item;
}

/** @param {string} words */
function addWords(words) {
  const prompt = store.state.form.prompt.trimEnd().replace(/,$/, "");
  if (prompt.includes(words)) return;
  store.edit({ prompt: prompt ? `${prompt}, ${words}` : words });
}

customElements.define("kz-loras", Loras);
