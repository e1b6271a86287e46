// The gallery: own pictures, the newest first. More are loaded while one scrolls; the arrow keys walk through it.
/** @import {Entry} from "./collection.js" */
import * as api from "../service/api.js";
import { pictureUrl } from "../service/pictures.js";
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";
import { collection, nameOfEntry } from "./collection.js";

const SOON = "600px";

class Gallery extends Part {
  /** Tiles whose pictures could not be read yet. @type {Set<HTMLElement>} */
  #missed = new Set();
  /** @type {Map<string, HTMLElement>} */
  #tiles = new Map();
  #isAtEnd = false;
  #near = new IntersectionObserver((seen) => this.#approach(seen), { rootMargin: SOON });

  start() {
    this.#near.observe(this.find(".end", HTMLElement));
    this.signal.addEventListener("abort", () => this.#near.disconnect());
    collection.addEventListener("change", () => this.#show(), { signal: this.signal });
    this.follow("capabilities", (capabilities) => capabilities && collection.refresh());
    this.follow("isOffline", (isOffline) => !isOffline && store.state.capabilities && collection.refresh());
    document.addEventListener("kz-key", () => collection.clear(), { signal: this.signal });
    document.addEventListener("visibilitychange", () => !document.hidden && store.state.capabilities && collection.refresh(), { signal: this.signal });
    this.follow("finished", (job) => {
      if (job?.status !== "succeeded") return;
      collection.add(job);
      if (collection.isOnlyFavourites) this.#choose(false); // a new picture is looked for here
    });
    this.follow("comparing", (entry) => {
      this.find(".choosing", HTMLElement).hidden = !entry;
      for (const [name, tile] of this.#tiles) tile.classList.toggle("is-chosen", entry !== null && nameOfEntry(entry) === name);
    });
    this.listen("click", ".stop", () => store.set("comparing", null));
    this.listen("click", ".again", () => collection.more());
    this.listen("click", "[data-only]", (_, target) => this.#choose(target.dataset.only === "favourites"));
    this.listen("click", ".open", (_, target) => {
      const entry = collection.entries.find((one) => nameOfEntry(one) === target.dataset.name);
      if (entry) store.set("viewing", entry);
    });
    this.listen("keydown", ".open", (event, target) => this.#walk(event, target));
    this.#choose(false);
  }

  /** @param {boolean} isFavourites */
  #choose(isFavourites) {
    collection.isOnlyFavourites = isFavourites;
    for (const button of this.querySelectorAll("[data-only]")) {
      button.setAttribute("aria-pressed", String((button.getAttribute("data-only") === "favourites") === isFavourites));
    }
    if (isFavourites) collection.loadFavourites();
    this.#show();
  }

  #show() {
    const entries = collection.shown();
    const names = new Set(entries.map(nameOfEntry));
    for (const [name, tile] of this.#tiles) {
      if (names.has(name)) continue;
      tile.remove();
      this.#tiles.delete(name);
    }
    const list = this.find(".tiles", HTMLElement);
    for (const [place, entry] of entries.entries()) {
      const tile = this.#tile(entry);
      if (list.children[place] !== tile) list.insertBefore(tile, list.children[place] ?? null);
    }
    // One tile is in the order of the Tab key; the arrow keys reach the others.
    const current = list.querySelector(".open[tabindex='0']") ?? list.querySelector(".open");
    current?.setAttribute("tabindex", "0");
    this.find(".empty", HTMLElement).textContent = entries.length ? "" : this.#emptiness();
    const failure = this.find(".failure", HTMLElement);
    failure.hidden = !collection.problem;
    this.find(".failure span", HTMLElement).textContent = collection.problem;
    if (this.#isAtEnd && !collection.problem && !collection.isOnlyFavourites && !collection.isComplete) this.#loadMore();
    for (const tile of this.#missed) this.#near.observe(tile);
    this.#missed.clear();
  }

  #emptiness() {
    if (collection.isOnlyFavourites) return "No favourites yet. The star of a picture keeps it here.";
    return collection.isComplete ? "Your pictures will be here." : "";
  }

  /** After a frame: the observer then knows whether the new tiles have filled the page. */
  #loadMore() {
    requestAnimationFrame(() => requestAnimationFrame(() => this.#isAtEnd && collection.more()));
  }

  /** The tile of a picture, up to date. @param {Entry} entry */
  #tile(entry) {
    const name = nameOfEntry(entry);
    const { job, index } = entry;
    let tile = this.#tiles.get(name);
    if (!tile) {
      const picture = make("img", { alt: "", decoding: "async" });
      const open = make("button", { type: "button", className: "open", tabIndex: -1, data: { name } }, picture, make("span", { className: "gone" }));
      tile = make("div", { className: "tile-picture", data: { name } }, open, make("span", { className: "star" }, "★"));
      const { width, height } = job.images[index] ?? { width: 1, height: 1 };
      tile.style.setProperty("--ratio", String(width / height));
      this.#tiles.set(name, tile);
      this.#near.observe(tile);
    }
    const isDeleted = job.images[index]?.deleted ?? false;
    const isLost = tile.dataset.lost !== undefined;
    const isFavourite = collection.isFavourite(entry);
    tile.classList.toggle("is-deleted", isDeleted || isLost);
    tile.classList.toggle("is-favourite", isFavourite);
    const gone = tile.querySelector(".gone");
    if (gone) gone.textContent = isDeleted ? "Deleted" : isLost ? "Not there" : "";
    if (isDeleted) tile.querySelector("img")?.removeAttribute("src");
    const label = [isDeleted ? "Deleted picture" : "Picture", isFavourite ? ", favourite" : "", `: ${job.request.prompt}`].join("");
    tile.querySelector(".open")?.setAttribute("aria-label", label);
    return tile;
  }

  /** Load what comes near, and older pictures near the end. @param {IntersectionObserverEntry[]} seen */
  #approach(seen) {
    for (const { target, isIntersecting } of seen) {
      if (target.className === "end") {
        this.#isAtEnd = isIntersecting;
        if (isIntersecting && store.state.capabilities && !collection.isOnlyFavourites && !collection.problem) collection.more();
      } else if (isIntersecting) {
        this.#near.unobserve(target);
        this.#load(/** @type {HTMLElement} */ (target));
      }
    }
  }

  /** @param {HTMLElement} tile */
  async #load(tile) {
    const entry = collection.entries.find((one) => nameOfEntry(one) === tile.dataset.name);
    const picture = tile.querySelector("img");
    if (!entry || !picture || entry.job.images[entry.index]?.deleted) return;
    picture.addEventListener("error", () => this.#miss(tile, entry), { once: true });
    const source = await pictureUrl(entry.job, entry.index).catch(() => "");
    if (source) picture.src = source;
    else this.#miss(tile, entry);
  }

  /** Ask what is wrong: the picture is gone, or it can be read later. @param {HTMLElement} tile @param {Entry} entry */
  async #miss(tile, { job, index }) {
    tile.querySelector("img")?.removeAttribute("src");
    const { status } = await api.imageFile(job.images[index]?.url ?? "").then(() => ({ status: 200 }), api.problemOf);
    if (status === 404 || status === 410) tile.dataset.lost = "";
    else this.#missed.add(tile);
    if (tile.dataset.lost === "") this.#show();
  }

  /** @param {KeyboardEvent} event @param {HTMLElement} from */
  #walk(event, from) {
    const all = [...this.querySelectorAll(".open")].filter((one) => one instanceof HTMLElement);
    const place = all.indexOf(from);
    const top = from.offsetTop;
    const columns = all.filter((one) => one.offsetTop === top).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -place, End: all.length - 1 - place };
    const next = all[place + (steps[/** @type {keyof typeof steps} */ (event.key)] ?? NaN)];
    if (!next) return;
    event.preventDefault();
    from.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

customElements.define("kz-gallery", Gallery);
