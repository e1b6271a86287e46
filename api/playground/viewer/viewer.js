// A picture, large, with its recipe and what can be done with it; or two pictures to compare; or a grid.
/** @import {Entry} from "../gallery/collection.js" */
import * as api from "../service/api.js";
import { nameOf, pictureUrl } from "../service/pictures.js";
import { randomSeed, useRequest } from "../state/form.js";
import { show as showRun, watch } from "../state/runs.js";
import { store } from "../state/store.js";
import { collection, nameOfEntry } from "../gallery/collection.js";
import { closeOnBack } from "../shell/back.js";
import { make, Part } from "../shell/part.js";
import { Comparison } from "./comparison.js";
import { download } from "./download.js";
import { Recipe } from "./recipe.js";
import { Vary } from "./vary.js";

class Viewer extends Part {
  start() {
    const dialog = this.find("dialog", HTMLDialogElement);
    dialog.addEventListener("close", () => store.set("viewing", null), { signal: this.signal });
    closeOnBack(dialog, this.signal);
    this.follow("viewing", (entry) => {
      if (entry) this.#open(entry);
      else if (dialog.open) dialog.close();
    });
    collection.addEventListener("change", () => this.#showState(), { signal: this.signal });
    this.listen("keydown", "dialog", (event) => this.#key(event));
    this.listen("click", ".close", () => dialog.close());
    this.listen("click", ".previous", () => this.#step(-1));
    this.listen("click", ".next", () => this.#step(1));
    this.listen("click", ".favourite", () => this.#entry && collection.toggleFavourite(this.#entry));
    this.listen("click", ".use", () => this.#use());
    this.listen("click", ".vary", () => this.#toggleVary());
    this.listen("submit", "form", () => {
      dialog.classList.toggle("has-grid", this.querySelector("kz-grid") !== null);
      this.find("#viewer-title", HTMLElement).textContent = "A picture and its grid";
      this.#showState();
    });
    this.listen("click", ".compare", () => this.#compare());
    this.listen("click", ".begin", () => this.#begin());
    this.listen("click", ".again", () => this.#try(() => this.#again()));
    this.listen("click", ".download", (_, target) => this.#try(() => this.#download(target.dataset.metadata === "full")));
    this.listen("click", ".delete", (_, target) => this.#delete(target));
    this.listen("focusout", ".delete", (_, target) => disarm(target));
  }

  get #entry() {
    return store.state.viewing;
  }

  /** The entry with its picture. */
  get #image() {
    return this.#entry?.job.images[this.#entry.index];
  }

  /** @param {Entry} entry */
  async #open(entry) {
    const dialog = this.find("dialog", HTMLDialogElement);
    const { comparing } = store.state;
    const other = comparing && nameOfEntry(comparing) !== nameOfEntry(entry) ? comparing : null;
    store.set("comparing", null);
    dialog.classList.toggle("is-comparing", other !== null);
    dialog.classList.remove("has-grid");
    this.#say("");
    this.find("kz-vary", Vary).close();
    this.find(".vary", HTMLElement).setAttribute("aria-expanded", "false");
    disarm(this.find(".delete", HTMLElement));
    this.find("#viewer-title", HTMLElement).textContent = other ? "Two pictures" : "Picture";
    this.find(".use", HTMLElement).textContent = other ? "Use the settings of the right one" : "Use these settings";
    this.find("kz-recipe", Recipe).show(entry, other);
    this.#showState();
    if (!dialog.open) dialog.showModal();
    if (other) this.find(".canvas", HTMLElement).replaceChildren(new Comparison(other, entry));
    else await this.#showPicture(entry);
  }

  /** @param {Entry} entry */
  async #showPicture(entry) {
    const { job, index } = entry;
    const image = job.images[index];
    const canvas = this.find(".canvas", HTMLElement);
    if (!image || image.deleted) return canvas.replaceChildren(make("p", { className: "hint" }, "This picture was deleted. “Make the same again” brings it back."));
    const picture = make("img", { alt: `Picture with seed ${image.seed}: ${job.request.prompt}`, width: image.width, height: image.height, decoding: "async" });
    picture.style.setProperty("--ratio", String(image.width / image.height));
    picture.style.setProperty("--width", `${image.width}px`);
    picture.addEventListener("error", async () => {
      const problem = await api.imageFile(image.url).then(() => null, api.problemOf);
      if (this.#entry === entry) canvas.replaceChildren(make("p", { className: "hint" }, whyMissing(problem)));
    });
    const source = await pictureUrl(job, index).catch((error) => this.#say(api.problemOf(error).message));
    if (this.#entry !== entry || !source) return;
    picture.src = source;
    canvas.replaceChildren(picture);
  }

  /** What can be done depends on the state of the picture and of the gallery. */
  #showState() {
    const entry = this.#entry;
    if (!entry) return;
    const { classList } = this.find("dialog", HTMLDialogElement);
    const isComparing = classList.contains("is-comparing");
    const isOne = !isComparing && !classList.contains("has-grid");
    const isDeleted = collection.entries.find((one) => nameOfEntry(one) === nameOfEntry(entry))?.job.images[entry.index]?.deleted ?? this.#image?.deleted ?? false;
    const favourite = this.find(".favourite", HTMLElement);
    favourite.setAttribute("aria-pressed", String(collection.isFavourite(entry)));
    favourite.textContent = collection.isFavourite(entry) ? "★" : "☆";
    favourite.hidden = !isOne;
    this.find(".previous", HTMLElement).hidden = !isOne || !collection.neighbour(entry, -1);
    this.find(".next", HTMLElement).hidden = !isOne || !collection.neighbour(entry, 1);
    for (const button of this.querySelectorAll(".download, .delete, .compare, .begin")) {
      /** @type {HTMLElement} */ (button).hidden = isDeleted || !isOne;
    }
    // A hidden button loses the focus, and keys would then go to the page behind.
    if (document.activeElement?.closest("[hidden]")) this.find(".close", HTMLElement).focus();
    this.find(".vary", HTMLElement).hidden = isComparing;
    this.find(".again", HTMLElement).hidden = !isOne;
  }

  /** @param {number} places */
  async #step(places) {
    const entry = this.#entry;
    if (!entry) return;
    const next = collection.neighbour(entry, places);
    if (next) store.set("viewing", next);
    if (places > 0 && !collection.neighbour(next ?? entry, 1) && !collection.isComplete) await collection.more();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    if (this.find("dialog", HTMLDialogElement).classList.contains("is-comparing")) return;
    if (event.key === "ArrowLeft") this.#step(-1);
    else if (event.key === "ArrowRight") this.#step(1);
    else if (event.key === "f" && !event.ctrlKey && !event.metaKey && this.#entry) collection.toggleFavourite(this.#entry);
    else return;
    event.preventDefault();
  }

  #use() {
    if (!this.#entry || !this.#image) return;
    const request = { ...this.#entry.job.request, seed: this.#image.seed, num_images: 1 };
    store.set("viewing", null);
    useRequest(request);
    document.getElementById("prompt")?.focus();
  }

  #toggleVary() {
    const vary = this.find("kz-vary", Vary);
    if (!this.#entry || !this.#image) return;
    if (vary.hidden) vary.open({ ...this.#entry.job.request, seed: this.#image.seed, num_images: 1 }, this.find(".canvas", HTMLElement));
    else vary.close();
    this.find(".vary", HTMLElement).setAttribute("aria-expanded", String(!vary.hidden));
  }

  #compare() {
    store.set("comparing", this.#entry);
    store.set("viewing", null);
    document.querySelector("kz-gallery .choosing")?.scrollIntoView({ block: "center" });
  }

  /** Start the next picture from this one. */
  #begin() {
    if (!this.#image) return;
    const { url, width, height } = this.#image;
    // What the picture shows comes along: another prompt would repaint it as something else.
    const { mask, strength, hires, ...request } = { ...this.#entry?.job.request, num_images: 1 };
    store.set("viewing", null);
    useRequest({ ...request, width, height, init_image: nameOf(url) });
    store.edit({ seed: randomSeed() });
    store.arrange({ isSeedLocked: false });
    document.querySelector("kz-picture")?.scrollIntoView({ block: "center" });
  }

  async #again() {
    if (!this.#entry) return;
    const job = await api.replay(this.#entry.job.id);
    watch(job);
    showRun(job.id);
    store.set("viewing", null);
  }

  /** @param {boolean} hasMetadata */
  async #download(hasMetadata) {
    if (this.#image) await download(this.#image, hasMetadata, this.#entry?.job.request.prompt ?? "");
  }

  /** The first click asks, the second deletes. @param {HTMLElement} button */
  #delete(button) {
    if (button.dataset.armed) return this.#try(() => this.#reallyDelete(button));
    button.dataset.armed = "yes";
    button.textContent = "Really delete?";
  }

  /** @param {HTMLElement} button */
  async #reallyDelete(button) {
    const entry = this.#entry;
    if (!entry) return;
    disarm(button);
    await collection.delete(entry);
    const found = collection.entries.find((one) => nameOfEntry(one) === nameOfEntry(entry));
    if (found) store.set("viewing", found);
    this.#say("Deleted for good.");
  }

  /** @param {() => Promise<void>} work */
  async #try(work) {
    try {
      await work();
    } catch (error) {
      this.#say(api.problemOf(error).message);
    }
  }

  /** @param {string} text */
  #say(text) {
    this.find(".message", HTMLElement).textContent = text;
  }
}

/** @param {api.Problem | null} problem of the picture's file */
function whyMissing(problem) {
  if (problem?.status === 404 || problem?.status === 410) return "The service no longer has this picture.";
  return problem?.message ?? "The browser cannot show this picture.";
}

/** @param {HTMLElement} button */
function disarm(button) {
  delete button.dataset.armed;
  button.textContent = "Delete";
}

customElements.define("kz-viewer", Viewer);
