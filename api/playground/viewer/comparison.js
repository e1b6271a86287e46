// Two pictures, one over the other: the slider moves the edge between them.
/** @import {Entry} from "../gallery/collection.js" */
import { pictureUrl } from "../service/pictures.js";
import { make, Part } from "../shell/part.js";

export class Comparison extends Part {
  /** @type {[Entry, Entry] | null} */
  #entries = null;

  /** @param {Entry} [left] @param {Entry} [right] */
  constructor(left, right) {
    super();
    if (left && right) this.#entries = [left, right];
  }

  start() {
    if (!this.#entries || this.children.length) return;
    const [left, right] = this.#entries;
    const { width, height } = right.job.images[right.index] ?? { width: 1, height: 1 };
    const slider = make("input", { type: "range", min: "0", max: "100", step: "0.5", value: "50", aria: { label: "How much of the left picture is shown" } });
    const move = () => this.style.setProperty("--split", `${slider.value}%`);
    slider.addEventListener("input", move);
    // The edge can be dragged in the picture as well.
    const drag = (/** @type {PointerEvent} */ event) => {
      if (!(event.buttons & 1)) return;
      const { left: start, width: length } = this.getBoundingClientRect();
      slider.value = String(((event.clientX - start) / length) * 100);
      move();
    };
    for (const type of /** @type {const} */ (["pointerdown", "pointermove"])) this.addEventListener(type, (event) => event.target !== slider && drag(event));
    this.style.setProperty("--ratio", String(width / height));
    this.style.setProperty("--width", `${width}px`);
    this.append(make("div", { className: "stack" }, picture(right, "right"), picture(left, "left"), make("div", { className: "edge" })), slider);
    move();
    slider.focus();
  }
}

/** @param {Entry} entry @param {string} side */
function picture({ job, index }, side) {
  const image = make("img", { className: side, alt: `The ${side} picture, seed ${job.images[index]?.seed}`, decoding: "async" });
  pictureUrl(job, index).then((source) => (image.src = source), () => (image.alt = `The ${side} picture cannot be read.`));
  return image;
}

customElements.define("kz-comparison", Comparison);
