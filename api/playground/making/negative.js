// The negative prompt. Left empty, it is the card's; the field shows it.
import { store } from "../state/store.js";
import { Part } from "../shell/part.js";
import { Completion } from "./completion.js";
import { weigh } from "./prompt.js";

class Negative extends Part {
  start() {
    const text = this.find("textarea", HTMLTextAreaElement);
    const hint = this.find(".hint", HTMLElement);
    new Completion(text, this.signal);
    text.addEventListener("keydown", weigh, { signal: this.signal });
    text.addEventListener("input", () => store.edit({ negative_prompt: text.value || null }), { signal: this.signal });
    const show = () => {
      const { form, capabilities } = store.state;
      const usual = capabilities?.defaults.negative_prompt ?? "";
      const value = form.negative_prompt ?? "";
      if (text.value !== value) text.value = value;
      text.placeholder = usual;
      hint.textContent = value || usual || "none";
    };
    this.follow("form", show);
    this.follow("capabilities", show);
  }
}

customElements.define("kz-negative", Negative);
