// Draws a mask over a picture: white in the request is painted here.
import { rememberSize } from "../state/stand_ins.js";
import { closeOnBack } from "../shell/back.js";
import { Part } from "../shell/part.js";
import { Slider } from "../shell/slider.js";
import { maskOf, paint } from "./strokes.js";
/** @import {Step, Point} from "./strokes.js" */

export class Mask extends Part {
  /** What was drawn, which undo takes back one by one. @type {Step[]} */
  #steps = [];
  #source = "";
  #tool = "brush";
  /** Width of the brush, in pixels of the picture. */
  #size = 40;
  /** The place of the keyboard's brush. @type {Point} */
  #place = [0, 0];
  /** @type {(mask: string | null) => void} */
  #finish = () => {};

  start() {
    this.listen("click", "[data-tool]", (_, target) => this.#choose(target.dataset.tool ?? "brush"));
    this.listen("kz-value", ".brush", ({ detail }) => detail && (this.#size = detail));
    this.listen("click", ".undo", () => this.#change(this.#steps.slice(0, -1)));
    this.listen("click", ".invert", () => this.#change([...this.#steps, { kind: "invert" }]));
    this.listen("click", ".clear", () => this.#change([...this.#steps, { kind: "clear" }]));
    this.listen("click", ".cancel", () => this.#dialog.close());
    this.listen("click", ".done", () => this.#done());
    this.listen("pointerdown", ".sheet", (event) => this.#draw(event));
    this.listen("pointermove", ".sheet", (event) => this.#ring(event));
    this.listen("keydown", "dialog", (event) => this.#key(event));
    closeOnBack(this.#dialog, this.signal);
  }

  get #dialog() {
    return this.find("dialog", HTMLDialogElement);
  }

  get #canvas() {
    return this.find("canvas", HTMLCanvasElement);
  }

  /** Open with a picture; `finish` gets the mask as a data URL, or null if nothing is painted. @param {HTMLImageElement} image @param {(mask: string | null) => void} finish */
  open(image, finish) {
    if (image.src !== this.#source) this.#steps = []; // a mask of the same picture is drawn further
    this.#source = image.src;
    this.#finish = finish;
    const { naturalWidth: width, naturalHeight: height } = image;
    this.find(".sheet img", HTMLImageElement).src = image.src;
    Object.assign(this.#canvas, { width, height });
    this.find(".sheet", HTMLElement).style.setProperty("--ratio", String(width / height));
    this.#place = [width / 2, height / 2];
    const most = Math.max(width, height) / 2;
    this.#size = Math.round(most / 5);
    this.find(".brush", Slider).show({ value: this.#size, min: 1, max: Math.round(most) });
    this.#change(this.#steps);
    this.#dialog.showModal();
    this.find(".sheet", HTMLElement).focus();
  }

  /** @param {string} tool */
  #choose(tool) {
    this.#tool = tool;
    for (const button of this.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.getAttribute("data-tool") === tool));
  }

  /** @param {Step[]} steps */
  #change(steps) {
    this.#steps = steps;
    paint(this.#canvas, steps);
    this.find(".undo", HTMLButtonElement).disabled = !steps.length;
  }

  /** @param {{clientX: number, clientY: number}} event @returns {Point} */
  #pointOf({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [((clientX - left) / width) * this.#canvas.width, ((clientY - top) / height) * this.#canvas.height];
  }

  /** Draw until the pointer is lifted. @param {PointerEvent} event */
  #draw(event) {
    if (event.button !== 0 || !event.isPrimary) return; // a second finger does not draw
    event.preventDefault();
    const sheet = this.find(".sheet", HTMLElement);
    sheet.setPointerCapture(event.pointerId);
    sheet.focus();
    /** @type {Point[]} */
    const points = [this.#pointOf(event)];
    this.#change([...this.#steps, this.#stroke(points)]);
    const life = new AbortController();
    sheet.addEventListener("pointermove", (moved) => {
      if (moved.pointerId !== event.pointerId) return;
      points.push(...(moved.getCoalescedEvents?.() ?? [moved]).map((one) => this.#pointOf(one)));
      paint(this.#canvas, this.#steps);
    }, { signal: life.signal });
    for (const end of ["pointerup", "pointercancel"]) sheet.addEventListener(end, (ended) => /** @type {PointerEvent} */ (ended).pointerId === event.pointerId && life.abort(), { signal: life.signal });
  }

  /** @param {Point[]} points @returns {Step} */
  #stroke(points) {
    return { kind: "stroke", points, size: this.#size, isEraser: this.#tool === "eraser" };
  }

  /** Show the brush. @param {{clientX: number, clientY: number}} event */
  #ring(event) {
    const sheet = this.find(".sheet", HTMLElement);
    const box = this.#canvas.getBoundingClientRect();
    const scale = box.width / this.#canvas.width;
    sheet.style.setProperty("--x", `${event.clientX - box.left}px`);
    sheet.style.setProperty("--y", `${event.clientY - box.top}px`);
    sheet.style.setProperty("--size", `${this.#size * scale}px`);
    this.find(".ring", HTMLElement).hidden = false;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const isZ = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey);
    if (isZ) this.#change(this.#steps.slice(0, -1));
    else if (event.target instanceof HTMLElement && event.target.matches(".sheet")) this.#brushKey(event);
    else return;
    if (isZ) event.preventDefault();
  }

  /** @param {KeyboardEvent} event */
  #brushKey(event) {
    const step = Math.max(1, this.#size / 2);
    /** @type {Record<string, Point>} */
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const move = moves[event.key];
    if (move) {
      const { width, height } = this.#canvas;
      this.#place = [Math.min(width, Math.max(0, this.#place[0] + move[0])), Math.min(height, Math.max(0, this.#place[1] + move[1]))];
    } else if (event.key === " ") this.#change([...this.#steps, this.#stroke([this.#place])]);
    else return;
    event.preventDefault();
    const { left, top, width } = this.#canvas.getBoundingClientRect();
    const scale = width / this.#canvas.width;
    this.#ring({ clientX: left + this.#place[0] * scale, clientY: top + this.#place[1] * scale });
  }

  async #done() {
    const { width, height } = this.#canvas;
    const mask = maskOf(this.#canvas);
    if (mask) await rememberSize(mask, width, height);
    this.#finish(mask);
    this.#dialog.close();
  }
}

customElements.define("kz-mask", Mask);
