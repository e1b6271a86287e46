// Light, dark, or as the system says.
import { readSaved, save } from "../state/saved.js";
import { make, Part } from "./part.js";

/** @type {Record<string, [next: string, sign: string]>} */
const THEMES = { auto: ["light", "◐"], light: ["dark", "☀"], dark: ["auto", "☾"] };

class Theme extends Part {
  start() {
    this.#show(readSaved("theme", "auto"));
    this.listen("click", "button", () => {
      const [next] = THEMES[document.documentElement.dataset.theme ?? "auto"] ?? ["auto"];
      save("theme", next);
      this.#show(next);
    });
  }

  /** @param {string} name */
  #show(name) {
    const [next, sign] = THEMES[name] ?? ["light", "◐"];
    document.documentElement.dataset.theme = name;
    const button = this.querySelector("button") ?? this.appendChild(make("button", { type: "button", className: "quiet" }));
    button.textContent = sign;
    button.title = `Colours: ${name}. Next: ${next}`;
    button.setAttribute("aria-label", button.title);
  }
}

customElements.define("kz-theme", Theme);
