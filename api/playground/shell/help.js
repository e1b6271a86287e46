// The list of keys, and the card's advice on prompts. `?` opens it.
import { make, Part } from "./part.js";

export class Help extends Part {
  start() {
    this.listen("click", "button.quiet", () => this.open());
    this.follow("capabilities", (capabilities) => {
      const notes = capabilities?.prompting.notes ?? [];
      this.find(".advice", HTMLElement).hidden = !notes.length;
      this.find(".advice ul", HTMLElement).replaceChildren(...notes.map((note) => make("li", {}, note)));
    });
  }

  open() {
    const dialog = this.find("dialog", HTMLDialogElement);
    if (!dialog.open) dialog.showModal();
  }
}

customElements.define("kz-help", Help);
