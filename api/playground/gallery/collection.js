// The own pictures, the newest first, as far as they have been loaded, and the favourites among them.
/** @import {Job} from "../service/types.js" */
import * as api from "../service/api.js";
import { readSaved, save } from "../state/saved.js";

/** @typedef {{job: Job, index: number}} Entry a picture: a job, and the place among its images */

const PAGE = 24;

/** The name under which a favourite is kept. @param {Entry} entry */
export const nameOfEntry = ({ job, index }) => `${job.id}/${index}`;

/** Fires "change" when pictures or favourites change. */
class Collection extends EventTarget {
  /** @type {Job[]} */
  #jobs = [];
  /** The next page; null at the end. @type {string | null | undefined} */
  #cursor;
  /** @type {Promise<void> | null} */
  #loading = null;
  /** @type {Set<string>} */
  #favourites = new Set(readSaved("favourites", []));
  /** Jobs of favourites that this key cannot read. @type {Set<string>} */
  #unread = new Set();
  isOnlyFavourites = false;
  problem = "";

  constructor() {
    super();
    addEventListener("storage", () => this.#readFavourites()); // another tab has changed them
  }

  /** Whether there are no older pictures than these. */
  get isComplete() {
    return this.#cursor === null;
  }

  /** @returns {Entry[]} */
  get entries() {
    return this.#jobs.flatMap((job) => job.images.map((_, index) => ({ job, index })));
  }

  /** The entries that the gallery shows, and one more. @param {Entry} [also] @returns {Entry[]} */
  shown(also) {
    if (!this.isOnlyFavourites) return this.entries;
    const name = also && nameOfEntry(also);
    return this.entries.filter((entry) => this.isFavourite(entry) || nameOfEntry(entry) === name);
  }

  /** Load older pictures. */
  async more() {
    if (this.isComplete) return;
    await this.#once(async (isOld) => {
      const page = await this.#page(this.#cursor);
      if (isOld()) return;
      this.#cursor = page.next;
      this.#merge(page.items);
    });
  }

  /** Load what is new or was deleted since, in another tab or while the service did not answer. */
  async refresh() {
    if (this.#cursor === undefined) return this.more();
    await this.#once(async (isOld) => {
      /** @type {string | null | undefined} */
      let cursor;
      do {
        const page = await this.#page(cursor);
        if (isOld()) return;
        // Up to what is known already, all of which is older.
        const isKnown = page.items.some(({ id }) => this.#jobs.some((job) => job.id === id));
        cursor = isKnown ? null : page.next;
        this.#merge(page.items);
      } while (cursor);
    });
  }

  /** @param {string | null | undefined} cursor */
  #page(cursor) {
    return api.jobs({ cursor, limit: PAGE, status: "succeeded" });
  }

  /** One load at a time; `isOld` tells whether the gallery was cleared meanwhile. @param {(isOld: () => boolean) => Promise<void>} load */
  async #once(load) {
    if (this.#loading) return this.#loading;
    const isOld = () => this.#loading !== loading;
    const run = async () => {
      await null; // `loading` is set
      try {
        await load(isOld);
        if (!isOld()) this.problem = "";
      } catch (error) {
        if (!isOld()) this.problem = api.problemOf(error).message;
      }
      if (isOld()) return;
      this.#loading = null;
      this.#tell();
    };
    const loading = (this.#loading = run());
    await loading;
  }

  /** Forget all pictures, as when the key changes. */
  clear() {
    this.#jobs = [];
    this.#cursor = undefined;
    this.#loading = null;
    this.#unread.clear();
    this.#tell();
  }

  /** Add a job, or its new state. @param {Job} job */
  add(job) {
    this.#merge([job]);
    this.#tell();
  }

  /** @param {readonly Job[]} jobs */
  #merge(jobs) {
    const known = new Map([...this.#jobs, ...jobs].map((job) => [job.id, job]));
    // The ids of jobs are in the order of their creation.
    this.#jobs = [...known.values()].filter((job) => job.images.length).sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  /** Delete a picture for good. @param {Entry} entry */
  async delete({ job, index }) {
    const image = job.images[index];
    if (!image) return;
    await api.deleteImage(image.url);
    const found = this.#jobs.find(({ id }) => id === job.id) ?? job;
    const images = found.images.map((one) => (one.url === image.url ? { ...one, deleted: true } : one));
    this.add({ ...found, images });
  }

  /** The picture that many places further; null beyond the ends. @param {Entry} entry @param {number} places */
  neighbour(entry, places) {
    const all = this.shown(entry);
    const place = all.findIndex((one) => nameOfEntry(one) === nameOfEntry(entry));
    return place < 0 ? null : (all[place + places] ?? null);
  }

  /** @param {Entry} entry */
  isFavourite(entry) {
    return this.#favourites.has(nameOfEntry(entry));
  }

  /** @param {Entry} entry */
  toggleFavourite(entry) {
    this.#readFavourites();
    const name = nameOfEntry(entry);
    if (!this.#favourites.delete(name)) this.#favourites.add(name);
    this.#saveFavourites();
  }

  /** Load the favourites that are older than what was loaded; forget those that have expired. */
  async loadFavourites() {
    const loaded = new Set(this.#jobs.map(({ id }) => id));
    const missing = new Set([...this.#favourites].map((name) => name.split("/")[0] ?? "").filter((id) => !loaded.has(id) && !this.#unread.has(id)));
    for (const id of missing) {
      try {
        this.add(await api.job(id));
      } catch (error) {
        const { status } = api.problemOf(error);
        if (status === 404) this.#unread.add(id); // perhaps a picture of another key
        else if (status !== 410) return;
        else {
          this.#favourites = new Set([...this.#favourites].filter((name) => !name.startsWith(`${id}/`)));
          this.#saveFavourites();
        }
      }
    }
  }

  #readFavourites() {
    this.#favourites = new Set(readSaved("favourites", []));
    this.#tell();
  }

  #saveFavourites() {
    save("favourites", [...this.#favourites]);
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

export const collection = new Collection();
