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
  problem = "";

  /** Whether there are no older pictures than these. */
  get isComplete() {
    return this.#cursor === null;
  }

  /** @returns {Entry[]} */
  get entries() {
    return this.#jobs.flatMap((job) => job.images.map((_, index) => ({ job, index })));
  }

  /** Load older pictures. */
  async more() {
    this.#loading ??= this.#load().finally(() => (this.#loading = null));
    await this.#loading;
  }

  async #load() {
    if (this.isComplete) return;
    try {
      const page = await api.jobs({ cursor: this.#cursor, limit: PAGE, status: "succeeded" });
      this.#cursor = page.next;
      this.problem = "";
      this.#merge(page.items);
    } catch (error) {
      this.problem = api.problemOf(error).message;
    }
    this.#tell();
  }

  /** Begin again, for example with another key. */
  async restart() {
    this.#jobs = [];
    this.#cursor = undefined;
    await this.more();
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
    const all = this.entries;
    const place = all.findIndex((one) => nameOfEntry(one) === nameOfEntry(entry));
    return place < 0 ? null : (all[place + places] ?? null);
  }

  /** @param {Entry} entry */
  isFavourite(entry) {
    return this.#favourites.has(nameOfEntry(entry));
  }

  /** @param {Entry} entry */
  toggleFavourite(entry) {
    const name = nameOfEntry(entry);
    if (!this.#favourites.delete(name)) this.#favourites.add(name);
    this.#saveFavourites();
  }

  /** Load the favourites that are older than what was loaded; forget those that have expired. */
  async loadFavourites() {
    const loaded = new Set(this.#jobs.map(({ id }) => id));
    const missing = new Set([...this.#favourites].map((name) => name.split("/")[0] ?? "").filter((id) => !loaded.has(id)));
    for (const id of missing) {
      try {
        this.add(await api.job(id));
      } catch (error) {
        if (![404, 410].includes(api.problemOf(error).status)) return;
        this.#favourites = new Set([...this.#favourites].filter((name) => !name.startsWith(`${id}/`)));
        this.#saveFavourites();
      }
    }
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
