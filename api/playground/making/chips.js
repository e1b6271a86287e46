// The prompt as chips by the card's groups. They can be dragged, weighted, changed and removed.
/** @import {TagGroup} from "../service/types.js" */
/** @import {Prompt} from "./segments.js" */
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { Completion } from "./completion.js";
import { dragging } from "./dragging.js";
import { join, moved, split, withNew, without, withText } from "./segments.js";
import { groupOf, lookUp, plainTag } from "./tags.js";
import { readWeight, reweighted } from "./weights.js";

class Chips extends Part {
  start() {
    const input = this.find(".add input", HTMLInputElement);
    new Completion(input, this.signal, (text) => this.#add(text));
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.ctrlKey || event.defaultPrevented || event.isComposing) return;
      event.preventDefault();
      if (input.value.trim()) this.#add(input.value.trim());
    }, { signal: this.signal });
    this.follow("form", () => this.#draw());
    this.follow("view", () => this.#draw());
    this.follow("capabilities", () => this.#draw());
    this.listen("keydown", ".chip", (event, chip) => this.#key(event, chip));
    this.listen("dblclick", ".chip", (_, chip) => this.#edit(chip));
    this.listen("click", ".chip .remove", (_, target) => this.#remove(indexOf(target.closest(".chip"))));
    dragging(this, (chip, group, before) => this.#move(indexOf(chip), group, before === null ? null : indexOf(before)));
  }

  get #prompt() {
    return split(store.state.form.prompt);
  }

  /** @param {Prompt} prompt */
  #write(prompt) {
    store.edit({ prompt: join(prompt) });
  }

  async #draw() {
    if (store.state.view.isText || !store.state.capabilities) return;
    const { segments } = this.#prompt;
    this.#show();
    if (await lookUp(segments.map(({ text }) => text))) this.#show();
  }

  #show() {
    const { segments } = this.#prompt;
    const focused = indexOf(document.activeElement?.closest(".chip") ?? null);
    const order = store.state.capabilities?.prompting.tag_order ?? [];
    const rows = order.map((group) => {
      const chips = segments.flatMap(({ text }, index) => (groupOf(text) === group ? [chip(text, index, group)] : []));
      const list = make("ul", { data: { group }, aria: { label: group } }, ...chips.map((button) => make("li", {}, button)));
      return make("div", { className: "row", data: { group, empty: String(!chips.length) } }, make("span", { className: "group", aria: { hidden: "true" } }, group), list);
    });
    this.find(".groups", HTMLElement).replaceChildren(...rows);
    if (focused >= 0) this.#focus(Math.min(focused, segments.length - 1));
  }

  /** @param {number} index */
  #focus(index) {
    const chip = this.querySelector(`.chip[data-index="${index}"]`);
    if (chip instanceof HTMLElement) chip.focus();
  }

  /** @param {string} text */
  #add(text) {
    const prompt = this.#prompt;
    // At the end of its group, so that the prompt stays in the card's order.
    this.#write(withNew(prompt, this.#endOf(groupOf(text), prompt), text));
    const input = this.find(".add input", HTMLInputElement);
    input.value = "";
    input.focus();
  }

  /** The place behind the last tag of a group, or of the groups before it. @param {TagGroup} group @param {Prompt} prompt */
  #endOf(group, { segments }) {
    const order = store.state.capabilities?.prompting.tag_order ?? [];
    const rank = order.indexOf(group);
    return segments.findLastIndex(({ text }) => order.indexOf(groupOf(text)) <= rank) + 1;
  }

  /** @param {number} index */
  #remove(index) {
    if (index < 0) return;
    this.#write(without(this.#prompt, index));
  }

  /** Move a chip into a group, before another chip or to the end. @param {number} index @param {TagGroup} group @param {number | null} before */
  #move(index, group, before) {
    const prompt = this.#prompt;
    const text = prompt.segments[index]?.text;
    if (text === undefined) return;
    if (groupOf(text) !== group) store.arrange({ groups: { ...store.state.view.groups, [plainTag(text)]: group } });
    const place = before ?? this.#endOf(group, { ...prompt, segments: prompt.segments.map((segment, at) => (at === index ? { ...segment, text: "" } : segment)) });
    this.#write(moved(prompt, index, place));
  }

  /** @param {KeyboardEvent} event @param {HTMLElement} chip */
  #key(event, chip) {
    const index = indexOf(chip);
    const { key } = event;
    if (event.target !== chip) return;
    const isVertical = key === "ArrowUp" || key === "ArrowDown";
    const direction = key === "ArrowUp" || key === "ArrowLeft" ? -1 : 1;
    if ((event.ctrlKey || event.metaKey) && isVertical) this.#weigh(index, -direction);
    else if (event.altKey && key.startsWith("Arrow")) this.#moveByKey(chip, isVertical, direction);
    else if (key.startsWith("Arrow")) this.#neighbour(chip, direction)?.focus();
    else if (key === "Delete" || key === "Backspace") this.#remove(index);
    else if (key === "Enter" && !event.ctrlKey && !event.metaKey || key === "F2") this.#edit(chip);
    else return;
    event.preventDefault();
  }

  /** @param {number} index @param {number} direction */
  #weigh(index, direction) {
    const prompt = this.#prompt;
    this.#write(withText(prompt, index, reweighted(prompt.segments[index]?.text ?? "", direction)));
  }

  /** @param {HTMLElement} chip @param {boolean} isVertical @param {number} direction */
  #moveByKey(chip, isVertical, direction) {
    const group = /** @type {TagGroup} */ (chip.dataset.group);
    const order = store.state.capabilities?.prompting.tag_order ?? [];
    const index = indexOf(chip);
    const text = this.#prompt.segments[index]?.text;
    if (isVertical) {
      const next = order[order.indexOf(group) + direction];
      if (next) this.#move(index, next, null);
    } else {
      const row = [...this.querySelectorAll(`.chip[data-group="${group}"]`)];
      const at = row.indexOf(chip);
      const other = row[at + direction];
      if (!other) return;
      this.#write(moved(this.#prompt, index, indexOf(other) + (direction > 0 ? 1 : 0)));
    }
    this.#focus(this.#prompt.segments.findIndex((segment) => segment.text === text));
  }

  /** @param {HTMLElement} chip @param {number} direction @returns {HTMLElement | undefined} */
  #neighbour(chip, direction) {
    const chips = /** @type {HTMLElement[]} */ ([...this.querySelectorAll(".chip")]);
    return chips[chips.indexOf(chip) + direction];
  }

  /** @param {HTMLElement} chip */
  #edit(chip) {
    const index = indexOf(chip);
    const old = this.#prompt.segments[index]?.text ?? "";
    const input = make("input", { type: "text", dir: "auto", className: "edit", value: old, spellcheck: false, aria: { label: "Change the tag" } });
    input.style.width = `${Math.max(6, old.length + 2)}ch`;
    let isDone = false;
    const end = (/** @type {boolean} */ isKept) => {
      if (isDone) return;
      isDone = true;
      const text = input.value.trim();
      if (!isKept || text === old) this.#show();
      else if (text) this.#write(withText(this.#prompt, index, text));
      else this.#remove(index);
      this.#focus(index);
    };
    input.addEventListener("blur", () => end(true));
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.isComposing) return;
      if (event.key === "Enter" || event.key === "Escape") end(event.key === "Enter");
    });
    chip.replaceWith(input);
    input.select();
  }
}

/** @param {string} text @param {number} index @param {string} group */
function chip(text, index, group) {
  const { words, weight } = readWeight(text);
  const remove = make("span", { className: "remove", title: "Remove" , aria: { hidden: "true" }}, "×");
  const content = make("span", { className: "words", dir: "auto" }, words.replace(/\\([()])/g, "$1"));
  const button = make("button", { type: "button", className: "chip", data: { index: String(index), group } }, content);
  if (weight !== 1) button.append(make("span", { className: "weight" }, `×${weight}`));
  button.append(remove);
  return button;
}

/** @param {Element | null} chip */
const indexOf = (chip) => (chip instanceof HTMLElement ? Number(chip.dataset.index) : -1);

customElements.define("kz-chips", Chips);
