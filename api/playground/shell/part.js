// The parent of all elements: fills them from their template and ends their listeners with them.
import { store } from "../state/store.js";
/** @import {State} from "../service/types.js" */

export class Part extends HTMLElement {
  #life = new AbortController();
  #isBuilt = false;

  /** Ends when the element leaves the page. */
  get signal() {
    return this.#life.signal;
  }

  connectedCallback() {
    this.#life = new AbortController();
    if (!this.#isBuilt) {
      this.#isBuilt = true;
      const template = document.getElementById(this.localName);
      if (template instanceof HTMLTemplateElement) this.append(template.content.cloneNode(true));
    }
    this.start();
  }

  disconnectedCallback() {
    this.#life.abort();
  }

  /** Called whenever the element enters the page, with the content of its template. */
  start() {}

  /**
   * The element inside that the selector finds.
   * @template {Element} T @param {string} selector @param {new () => T} type @returns {T}
   */
  find(selector, type) {
    const found = this.querySelector(selector);
    if (!(found instanceof type)) throw new Error(`${this.localName} has no ${selector}`);
    return found;
  }

  /**
   * Listen for events of the element, or of those inside that the selector finds, now and later.
   * @template {keyof HTMLElementEventMap} K @param {K} type @param {string} selector
   * @param {(event: HTMLElementEventMap[K], target: HTMLElement) => void} handler
   */
  listen(type, selector, handler) {
    const heard = (/** @type {HTMLElementEventMap[K]} */ event) => {
      const target = event.target instanceof Element ? event.target.closest(selector) : null;
      if (target instanceof HTMLElement && this.contains(target)) handler(event, target);
    };
    this.addEventListener(type, heard, { signal: this.signal });
  }

  /** Follow a part of the state. @template {keyof State} K @param {K} key @param {(value: State[K]) => void} handler */
  follow(key, handler) {
    store.on(key, handler, this.signal);
  }
}

/**
 * A new element with properties and children: `make("button", {type: "button"}, "Cancel")`.
 * @template {keyof HTMLElementTagNameMap} K @param {K} name
 * @param {Partial<Omit<HTMLElementTagNameMap[K], "dataset" | "style">> & {data?: Record<string, string>, aria?: Record<string, string>}} [properties]
 * @param {(Node | string)[]} children @returns {HTMLElementTagNameMap[K]}
 */
export function make(name, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const element = document.createElement(name);
  Object.assign(element, properties);
  Object.assign(element.dataset, data);
  for (const [key, value] of Object.entries(aria)) element.setAttribute(`aria-${key}`, value);
  element.append(...children);
  return element;
}
