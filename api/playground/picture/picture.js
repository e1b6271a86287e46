// A picture to start from: chosen, dropped or pasted. If it has a recipe, that is offered instead.
/** @import {Form, ResolvedRequest} from "../service/types.js" */
import * as api from "../service/api.js";
import { useRequest } from "../state/form.js";
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { Slider } from "../shell/slider.js";
import { fittedSize, readPicture } from "./files.js";
import { Mask } from "./mask.js";
import "./hires.js";

const WRITERS = { kirazuri: "this service", infotext: "the A1111 web UI or a similar program", comfyui: "ComfyUI" };

class Picture extends Part {
  /** The file whose recipe is offered. @type {File | null} */
  #offered = null;
  /** @type {Partial<ResolvedRequest> & {resolution?: string}} */
  #request = {};
  #shown = "";
  /** The file that was taken last. @type {File | null} */
  #taken = null;

  start() {
    // The browser does not keep large pictures: what belongs to one goes with it.
    if (!store.state.form.init_image) store.edit({ init_image: null, mask: null, strength: null });
    this.follow("form", (form) => this.#show(form));
    this.follow("capabilities", () => this.#show(store.state.form));
    this.listen("change", "[type=file]", (_, target) => {
      const input = /** @type {HTMLInputElement} */ (target);
      const [file] = input.files ?? [];
      input.value = "";
      if (file) this.#take(file);
    });
    this.listen("kz-value", ".strength", ({ detail }) => store.edit({ strength: detail }));
    this.listen("click", ".remove", () => store.edit({ init_image: null, mask: null, strength: null }));
    this.listen("click", ".unmask", () => store.edit({ mask: null }));
    this.listen("click", ".draw", () => this.#draw());
    this.listen("click", ".use", () => {
      const [, width, height] = /^(\d+)x(\d+)$/.exec(this.#request.resolution ?? "") ?? [];
      useRequest(width ? { ...this.#request, width: Number(width), height: Number(height) } : this.#request);
      this.#offer(null);
    });
    this.listen("click", ".begin", () => this.#offered && this.#begin(this.#offered));
    this.listen("click", ".neither", () => this.#offer(null));
    this.#listenToPage();
  }

  /** Files may be dropped and pasted anywhere. */
  #listenToPage() {
    const { signal } = this;
    const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
    document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault(), { signal });
    document.addEventListener("drop", (event) => {
      const [file] = event.dataTransfer?.files ?? [];
      if (!hasFiles(event)) return;
      event.preventDefault();
      if (file) this.#take(file);
    }, { signal });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
      // Programs such as spreadsheets put a picture of the text beside the text.
      const isText = event.target instanceof Element && event.target.matches("textarea, input") && event.clipboardData?.types.includes("text/plain");
      if (!file || isText) return;
      event.preventDefault();
      this.#take(file);
    }, { signal });
  }

  /** Offer the recipe of a file, or start from the file if it has none. @param {File} file */
  async #take(file) {
    for (const dialog of document.querySelectorAll("dialog[open]")) /** @type {HTMLDialogElement} */ (dialog).close();
    this.#taken = file;
    this.#offer(null);
    this.find("details", HTMLDetailsElement).open = true;
    this.scrollIntoView({ block: "nearest" });
    const found = await api.verify(file).catch(api.problemOf);
    if (this.#taken !== file) return; // another one came meanwhile
    if (found instanceof api.Problem) {
      // What the service does not read, or not of this size, the browser may.
      if ([413, 422].includes(found.status)) await this.#begin(file, true);
      else this.#fail(found.message);
    } else if (!found.recipe || !Object.keys(found.recipe.request).length) await this.#begin(file);
    else {
      this.#request = found.recipe.request;
      this.#offer(file, found.recipe);
    }
  }

  /** @param {File | null} file @param {import("../service/types.js").RecipeClaim | null} recipe */
  #offer(file, recipe = null) {
    this.#offered = file;
    this.#fail("");
    this.find(".offer", HTMLElement).hidden = !recipe;
    if (!recipe) return;
    const writer = WRITERS[/** @type {keyof typeof WRITERS} */ (recipe.kind)] ?? recipe.kind;
    const { prompt, steps, sampler, seed, cfg_scale } = recipe.request;
    const facts = [steps && `${steps} steps`, sampler, cfg_scale && `CFG ${cfg_scale}`, seed !== undefined && `seed ${seed}`, recipe.model];
    this.find(".title", HTMLElement).textContent = `This picture has a recipe of ${writer}.`;
    this.find(".text", HTMLElement).textContent = [prompt, facts.filter(Boolean).join(", ")].filter(Boolean).join(" · ");
    this.find(".unused", HTMLElement).replaceChildren(...recipe.notes.map((note) => make("li", {}, `Not used: ${note}`)));
    this.find(".use", HTMLElement).focus();
  }

  /** Start from the picture of a file. @param {File} file @param {boolean} isForeign the service does not read the file */
  async #begin(file, isForeign = false) {
    this.#offer(null);
    const { capabilities } = store.state;
    if (!capabilities) return;
    try {
      const { text, width, height } = await readPicture(file, capabilities, isForeign);
      if (this.#taken !== file) return;
      store.edit({ init_image: text, mask: null, resolution: fittedSize(width, height, capabilities) });
    } catch (error) {
      this.#fail(`${file.name || "The picture"} cannot be used: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** @param {Form} form */
  async #show(form) {
    const { capabilities } = store.state;
    const name = form.init_image ?? "";
    this.find(".chosen", HTMLElement).hidden = !name;
    this.find("summary .hint", HTMLElement).textContent = name ? (form.mask ? "with a mask" : "chosen") : "none";
    const mask = this.find(".thumb .mask", HTMLImageElement);
    mask.hidden = !form.mask;
    this.find(".unmask", HTMLElement).hidden = !form.mask;
    if (form.mask) mask.src = await sourceOf(form.mask);
    if (name && capabilities) {
      const value = form.strength ?? capabilities.defaults.strength ?? 0.6;
      this.find(".strength", Slider).show({ value, min: 0, max: 1, step: 0.05 });
    }
    if (name === this.#shown) return;
    this.#shown = name;
    const image = this.find(".thumb .start", HTMLImageElement);
    image.removeAttribute("src");
    if (!name) return;
    this.find("details", HTMLDetailsElement).open = true;
    const source = await sourceOf(name).catch(() => "");
    if (!source || this.#shown !== name) return;
    image.src = source;
    await image.decode().catch(() => {});
    this.find(".size", HTMLElement).textContent = `${image.naturalWidth} × ${image.naturalHeight}; it is scaled and cropped to the size above.`;
  }

  async #draw() {
    const image = this.find(".thumb .start", HTMLImageElement);
    await image.decode();
    this.find("kz-mask", Mask).open(image, (mask) => store.edit({ mask }));
  }

  /** @param {string} text */
  #fail(text) {
    const failure = this.find(".failure", HTMLElement);
    failure.hidden = !text;
    failure.textContent = text;
  }
}

/** What an <img> shows of a picture field: a data URL, or an image of the service. @param {string} text */
async function sourceOf(text) {
  return text.startsWith("data:") ? text : URL.createObjectURL(await api.imageFile(text));
}

customElements.define("kz-picture", Picture);
