// "Change one thing": chooses what a grid of pictures changes, and makes the grid.
/** @import {ResolvedRequest} from "../service/types.js" */
/** @import {Axis} from "./axes.js" */
import { make, Part } from "../shell/part.js";
import { axesOf, MOST, requestFor, valuesOf } from "./axes.js";
import { Grid } from "./grid.js";

export class Vary extends Part {
  /** @type {ResolvedRequest | null} */
  #request = null;
  /** @type {Axis[]} */
  #axes = [];
  /** @type {HTMLElement | null} */
  #place = null;

  start() {
    this.listen("change", "select", (_, target) => this.#choose(/** @type {HTMLSelectElement} */ (target)));
    this.listen("input", "input", () => this.#count());
    this.listen("submit", "form", (event) => {
      event.preventDefault();
      this.#make();
    });
  }

  /** @param {ResolvedRequest} request @param {HTMLElement} place where the grid will be */
  open(request, place) {
    this.#request = request;
    this.#place = place;
    this.#axes = axesOf(request);
    const options = () => this.#axes.map(({ name, label }) => make("option", { value: name }, label));
    this.#select("x").replaceChildren(...options());
    this.#select("y").replaceChildren(make("option", { value: "" }, "nothing"), ...options());
    this.hidden = false;
    for (const letter of ["x", "y"]) this.#choose(this.#select(letter));
    this.#select("x").focus();
  }

  close() {
    this.hidden = true;
  }

  /** @param {string} letter */
  #select(letter) {
    return this.find(`[name=${letter}]`, HTMLSelectElement);
  }

  /** @param {string} letter */
  #axis(letter) {
    return this.#axes.find(({ name }) => name === this.#select(letter).value);
  }

  /** @param {HTMLSelectElement} select */
  #choose(select) {
    const values = this.find(`[name=${select.name}-values]`, HTMLInputElement);
    const axis = this.#axis(select.name);
    values.value = axis?.example ?? "";
    values.disabled = !axis;
    this.#count();
  }

  /** The axes with their values, or what is wrong. */
  #read() {
    const chosen = ["x", "y"].flatMap((letter) => {
      const axis = this.#axis(letter);
      return axis ? [{ axis, ...valuesOf(axis, this.find(`[name=${letter}-values]`, HTMLInputElement).value) }] : [];
    });
    const [x, y] = chosen;
    const error = x && y && x.axis === y.axis ? "Choose two different settings." : (chosen.find((one) => one.error)?.error ?? "");
    return { x, y, error };
  }

  #count() {
    const { x, y, error } = this.#read();
    const count = (x?.values.length ?? 0) * (y?.values.length ?? 1);
    this.find(".count", HTMLElement).textContent = error ? `At most ${MOST} by ${MOST} pictures.` : `${count} ${count === 1 ? "picture" : "pictures"}, each a job of its own.`;
    this.find(".wrong", HTMLElement).textContent = error;
  }

  #make() {
    const { x, y, error } = this.#read();
    if (!x || error || !this.#request) return;
    this.#place?.replaceChildren(new Grid(requestFor(this.#request), x, y));
  }
}

customElements.define("kz-vary", Vary);
