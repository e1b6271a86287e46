// The box for the API key. It opens by itself if the service asks for one.
import { readKey, writeKey } from "../service/key.js";
import { store } from "../state/store.js";
import { Part } from "./part.js";

class Key extends Part {
  start() {
    this.listen("click", "button", (_, target) => this.#press(/** @type {HTMLButtonElement} */ (target)));
    this.listen("submit", "form", (event) => {
      event.preventDefault();
      const key = this.#input.value.trim();
      // A header takes no other characters.
      if (/^[\x21-\x7e]*$/.test(key)) this.#use(key);
      else this.find(".reason", HTMLElement).textContent = "A key has no spaces and no letters with accents or of other scripts.";
    });
    this.#dialog.addEventListener("close", () => store.set("keyReason", ""), { signal: this.signal });
    this.follow("keyReason", (reason) => {
      if (!reason) return;
      this.find(".reason", HTMLElement).textContent = reason;
      this.#open();
    });
    this.#show();
  }

  get #dialog() {
    return this.find("dialog", HTMLDialogElement);
  }

  get #input() {
    return this.find("input", HTMLInputElement);
  }

  /** @param {HTMLButtonElement} button */
  #press(button) {
    if (button.value === "forget") this.#use("");
    else if (button.value === "close") this.#dialog.close();
    else if (button.type === "button") {
      this.find(".reason", HTMLElement).textContent = "";
      this.#open();
    }
  }

  #open() {
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }

  /** @param {string} key */
  #use(key) {
    writeKey(key);
    this.#input.value = "";
    this.#dialog.close();
    this.#show();
    this.dispatchEvent(new Event("kz-key", { bubbles: true }));
  }

  #show() {
    const button = this.find("button", HTMLButtonElement);
    button.textContent = readKey() ? "Key ✓" : "Key";
    button.title = readKey() ? "An API key is used" : "Enter an API key";
  }
}

customElements.define("kz-key", Key);
