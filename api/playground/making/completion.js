// Completes tags in a text field: a list below the cursor, from `GET /tags`.
/** @import {CompletedTag} from "../service/types.js" */
import * as api from "../service/api.js";
import { make } from "../shell/part.js";
import { caretOf } from "./caret.js";
import { learn, promptText } from "./tags.js";

const LIMIT = 12;
const TYPING_PAUSE = 60;
const COUNTS = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

let lists = 0;

export class Completion {
  /** @type {CompletedTag[]} */
  #items = [];
  #active = -1;
  #call = new AbortController();
  #field;
  #list = make("ul", { className: "completion", popover: "manual", id: `completion-${++lists}`, role: "listbox" });
  #accept;

  /**
   * @param {HTMLTextAreaElement | HTMLInputElement} field @param {AbortSignal} signal
   * @param {(text: string, typed: string) => void} [accept] takes a tag and the words that were found; by default it
   * replaces what was typed of it
   */
  constructor(field, signal, accept) {
    this.#field = field;
    this.#accept = accept ?? ((text, typed) => this.#insert(text, typed));
    this.#list.setAttribute("aria-label", "Tags");
    field.after(this.#list);
    for (const [name, value] of Object.entries({ autocomplete: "list", haspopup: "listbox", controls: this.#list.id })) {
      field.setAttribute(`aria-${name}`, value);
    }
    field.addEventListener("input", (event) => this.#typed(/** @type {InputEvent} */ (event)), { signal });
    field.addEventListener("keydown", (event) => this.#key(/** @type {KeyboardEvent} */ (event)), { signal });
    field.addEventListener("blur", () => this.close(), { signal });
    field.addEventListener("click", () => this.close(), { signal });
    // Before the field loses the focus.
    this.#list.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      const option = event.target instanceof Element ? event.target.closest("li") : null;
      if (option) this.#choose(Number(option.dataset.index));
    });
  }

  get #isOpen() {
    return this.#items.length > 0;
  }

  close() {
    this.#call.abort();
    this.#show([]);
  }

  /** @param {InputEvent} event */
  async #typed(event) {
    this.#call.abort();
    const [start, caret] = this.#range();
    const prefix = this.#field.value.slice(start, caret);
    if (!prefix || !event.inputType?.startsWith("insert") && !event.inputType?.startsWith("delete")) return this.#show([]);
    const { signal } = (this.#call = new AbortController());
    try {
      await api.pause(TYPING_PAUSE, signal);
      const items = await api.tags(prefix.slice(0, 100), LIMIT, signal);
      learn(items);
      const isDone = items.length === 1 && items[0]?.tag === prefix.toLowerCase();
      if (!signal.aborted) this.#show(isDone ? [] : items);
    } catch {
      if (!signal.aborted) this.#show([]);
    }
  }

  /** What is typed of a tag: from its first letter to the cursor. @returns {[number, number]} */
  #range() {
    const caret = this.#field.selectionStart ?? 0;
    const before = this.#field.value.slice(0, caret);
    const [word = ""] = /[^,\n]*$/.exec(before) ?? [];
    const [lead = ""] = /^[\s([{]*/.exec(word) ?? [];
    return [caret - word.length + lead.length, caret];
  }

  /** @param {CompletedTag[]} items */
  #show(items) {
    this.#items = items;
    this.#active = -1;
    this.#field.removeAttribute("aria-activedescendant");
    if (!items.length) {
      if (this.#list.matches(":popover-open")) this.#list.hidePopover();
      this.#list.replaceChildren();
      return;
    }
    this.#list.replaceChildren(...items.map((item, index) => this.#option(item, index)));
    if (!this.#list.matches(":popover-open")) this.#list.showPopover();
    this.#place();
  }

  /** @param {CompletedTag} item @param {number} index */
  #option({ tag, category, count, alias_of }, index) {
    const option = make("li", { role: "option", id: `${this.#list.id}-${index}`, data: { index: String(index), group: category }, aria: { selected: "false" } });
    option.append(make("span", { className: "tag" }, tag));
    if (alias_of) option.append(make("span", { className: "alias" }, `→ ${alias_of}`));
    option.append(make("span", { className: "group" }, category));
    if (count !== null) option.append(make("span", { className: "count", title: `${count} pictures` }, COUNTS.format(count)));
    return option;
  }

  /** Below the cursor, or above it if there is no room. */
  #place() {
    const caret = caretOf(this.#field, this.#range()[0]);
    const { width, height } = this.#list.getBoundingClientRect();
    const left = Math.max(4, Math.min(caret.left - 8, innerWidth - width - 4));
    const below = caret.bottom + 4;
    const top = below + height > innerHeight && caret.top - height > 4 ? caret.top - height - 4 : below;
    Object.assign(this.#list.style, { left: `${left}px`, top: `${top}px` });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey && event.key === "Enter") this.close();
    if (!this.#isOpen || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#activate(this.#active + step);
    else if (event.key === "Tab" && !event.shiftKey) this.#choose(Math.max(0, this.#active));
    else if (event.key === "Enter" && this.#active >= 0) this.#choose(this.#active);
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} index */
  #activate(index) {
    const options = [...this.#list.children];
    this.#active = (index + options.length) % options.length;
    options.forEach((option, place) => option.setAttribute("aria-selected", String(place === this.#active)));
    const active = options[this.#active];
    active?.scrollIntoView({ block: "nearest" });
    if (active) this.#field.setAttribute("aria-activedescendant", active.id);
  }

  /** @param {number} index */
  #choose(index) {
    const item = this.#items[index];
    if (!item) return;
    this.#accept(promptText(item.alias_of ?? item.tag, item.category), item.tag);
    this.close();
  }

  /** @param {string} text @param {string} typed */
  #insert(text, typed) {
    const [start, caret] = this.#range();
    const rest = this.#field.value.slice(caret);
    const [word = ""] = /^[^,\n)]*/.exec(rest) ?? [];
    // What follows is the rest of this tag, or a tag before which this one was written.
    const missing = typed.slice(caret - start);
    const isRest = missing.endsWith(word.trimEnd()) || missing[0] === word[0];
    const old = isRest ? word : "";
    const isSeparated = /^\s*[,\n):]/.test(rest.slice(old.length));
    replaceText(this.#field, start, caret + old.trimEnd().length, isSeparated ? text : `${text}, `);
  }
}

/**
 * Replace a part of a field's text such that Ctrl+Z brings it back.
 * @param {HTMLTextAreaElement | HTMLInputElement} field @param {number} start @param {number} end @param {string} text
 */
export function replaceText(field, start, end, text) {
  field.focus({ preventScroll: true });
  field.setSelectionRange(start, end);
  // Only this outdated call keeps the history of the field.
  if (document.execCommand("insertText", false, text)) return;
  field.setRangeText(text, start, end, "end");
  field.dispatchEvent(new InputEvent("input", { bubbles: true }));
}
