// The prompt: as text, or as chips. The text is what counts; chips are another view of it.
import { store } from "../state/store.js";
import { Part } from "../shell/part.js";
import "./chips.js";
import { Completion, replaceText } from "./completion.js";
import { reweighted, weightedRange } from "./weights.js";

class Prompt extends Part {
  start() {
    const text = this.find("textarea", HTMLTextAreaElement);
    const completion = new Completion(text, this.signal);
    text.addEventListener("input", () => store.edit({ prompt: text.value }), { signal: this.signal });
    text.addEventListener("keydown", weigh, { signal: this.signal });
    this.follow("form", ({ prompt }) => {
      if (text.value === prompt) return;
      if (!text.value || text.hidden || document.querySelector("dialog[open]")) text.value = prompt;
      else rewrite(text, prompt);
      completion.close();
    });
    this.follow("capabilities", (capabilities) => {
      text.placeholder = capabilities?.prompting.example ?? "";
    });
    this.follow("view", ({ isText }) => {
      text.hidden = !isText;
      this.find("kz-chips", HTMLElement).hidden = isText;
      for (const button of this.querySelectorAll("[data-mode]")) {
        const isText_ = button.getAttribute("data-mode") === "text";
        button.setAttribute("aria-pressed", String(isText_ === isText));
      }
    });
    this.listen("click", "[data-mode]", (_, button) => store.arrange({ isText: button.dataset.mode === "text" }));
  }
}

/** Such that Ctrl+Z brings back what somebody has written. @param {HTMLTextAreaElement} field @param {string} text */
function rewrite(field, text) {
  const focused = document.activeElement;
  replaceText(field, 0, field.value.length, text);
  if (focused !== field && focused instanceof HTMLElement) focused.focus({ preventScroll: true });
}

/** Ctrl+Up and Ctrl+Down change the weight of the selection. @param {KeyboardEvent} event */
export function weigh(event) {
  const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const field = event.currentTarget;
  if (!direction || !(event.ctrlKey || event.metaKey) || !(field instanceof HTMLTextAreaElement)) return;
  event.preventDefault();
  const [start, end] = weightedRange(field.value, field.selectionStart, field.selectionEnd);
  if (start === end) return;
  const text = reweighted(field.value.slice(start, end), direction);
  replaceText(field, start, end, text);
  field.setSelectionRange(start, start + text.length);
}

customElements.define("kz-prompt", Prompt);
