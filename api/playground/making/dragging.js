// Dragging chips with the mouse, a pen or a finger (after a moment, so that a finger can scroll).
/** @import {TagGroup} from "../service/types.js" */
/** @import {Part} from "../shell/part.js" */

const THRESHOLD = 5;
const TOUCH_MS = 300;

/**
 * @param {Part} host with rows `[data-group]` of `.chip`s
 * @param {(chip: HTMLElement, group: TagGroup, before: HTMLElement | null) => void} drop
 */
export function dragging(host, drop) {
  host.listen("pointerdown", ".chip", (event, chip) => {
    if (event.button || (event.target instanceof Element && event.target.closest(".remove"))) return;
    new Drag(host, chip, event, drop);
  });
}

class Drag {
  #life = new AbortController();
  #isMoving = false;
  #mark = document.createElement("span");
  /** @type {HTMLElement | null} */
  #ghost = null;

  /** @param {Part} host @param {HTMLElement} chip @param {PointerEvent} begin @param {Parameters<typeof dragging>[1]} drop */
  constructor(host, chip, begin, drop) {
    this.host = host;
    this.chip = chip;
    this.begin = begin;
    this.drop = drop;
    this.#mark.className = "mark";
    const { signal } = this.#life;
    addEventListener("pointermove", (event) => this.#move(event), { signal });
    addEventListener("pointerup", () => this.#end(true), { signal });
    addEventListener("pointercancel", () => this.#end(false), { signal });
    // A finger that drags must not scroll.
    addEventListener("touchmove", (event) => this.#isMoving && event.preventDefault(), { signal, passive: false });
    addEventListener("keydown", (event) => event.key === "Escape" && this.#stop(event), { signal, capture: true });
    if (begin.pointerType === "touch") setTimeout(() => !signal.aborted && this.#lift(), TOUCH_MS);
  }

  #lift() {
    this.#isMoving = true;
    this.host.dataset.dragging = "";
    this.chip.dataset.lifted = "";
    const ghost = /** @type {HTMLElement} */ (this.chip.cloneNode(true));
    ghost.classList.add("ghost");
    ghost.inert = true;
    this.host.append(ghost);
    this.#ghost = ghost;
    this.#place(this.begin);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const distance = Math.hypot(event.clientX - this.begin.clientX, event.clientY - this.begin.clientY);
    if (!this.#isMoving) {
      if (distance < THRESHOLD) return;
      // Before the finger has rested on the chip, it scrolls.
      if (event.pointerType === "touch") return this.#end(false);
      this.#lift();
    }
    event.preventDefault();
    this.#place(event);
    this.#aim(event);
  }

  /** @param {PointerEvent} event */
  #place({ clientX, clientY }) {
    Object.assign(this.#ghost?.style ?? {}, { left: `${clientX + 8}px`, top: `${clientY + 8}px` });
  }

  /** Put the mark where the chip would go. @param {PointerEvent} event */
  #aim({ clientX, clientY }) {
    const row = document.elementFromPoint(clientX, clientY)?.closest("[data-group].row");
    const list = row && this.host.contains(row) ? row.querySelector("ul") : null;
    if (!list) return;
    const next = [...list.querySelectorAll(".chip")].find((chip) => {
      const { left, width, top, bottom } = chip.getBoundingClientRect();
      return clientY < top || (clientY < bottom && clientX < left + width / 2);
    });
    const before = next?.closest("li") ?? null;
    if (this.#mark.nextElementSibling !== before || this.#mark.parentElement !== list) list.insertBefore(this.#mark, before);
  }

  /** Esc ends the drag, and cancels no job. @param {KeyboardEvent} event */
  #stop(event) {
    if (this.#isMoving) event.preventDefault();
    this.#end(false);
  }

  /** @param {boolean} isDropped */
  #end(isDropped) {
    this.#life.abort();
    if (!this.#isMoving) return;
    const list = this.#mark.parentElement;
    const next = this.#mark.nextElementSibling?.querySelector(".chip");
    this.#mark.remove();
    this.#ghost?.remove();
    delete this.host.dataset.dragging;
    delete this.chip.dataset.lifted;
    if (!isDropped || !list) return;
    const group = /** @type {TagGroup} */ (list.dataset.group);
    this.drop(this.chip, group, next instanceof HTMLElement ? next : null);
  }
}
