// The seed of the next picture. Unless it is locked, every picture gets another one.
import { randomSeed } from "../state/form.js";
import { store } from "../state/store.js";
import { Part } from "../shell/part.js";

class Seed extends Part {
  start() {
    const input = this.find("input", HTMLInputElement);
    const lock = this.find(".lock", HTMLButtonElement);
    if (store.state.form.seed === undefined || store.state.form.seed === null) store.edit({ seed: randomSeed() });
    this.listen("input", "input", () => {
      const text = input.value.trim();
      // Something that is no number goes to the service, which says what is wrong with it.
      store.edit({ seed: /^-?\d+$/.test(text) ? Number(text) : text === "" ? null : /** @type {any} */ (text) });
      store.arrange({ isSeedLocked: text !== "" });
    });
    this.listen("click", ".dice", () => store.edit({ seed: randomSeed() }));
    this.listen("click", ".lock", () => store.arrange({ isSeedLocked: !store.state.view.isSeedLocked }));
    this.follow("form", ({ seed }) => {
      if (input !== document.activeElement || Number(input.value) !== seed) input.value = String(seed ?? "");
    });
    this.follow("view", ({ isSeedLocked }) => {
      lock.setAttribute("aria-pressed", String(isSeedLocked));
      this.find(".hint", HTMLElement).textContent = isSeedLocked ? "kept: the same settings give the same picture" : "another one for every picture";
    });
  }
}

customElements.define("kz-seed", Seed);
