// URLs of images for `<img>`, which sends no key: with a key they are signed, one call for all images of a job.
/** @import {Job} from "./types.js" */
import { links, reachable } from "./api.js";
import { readKey } from "./key.js";

/** @typedef {{urls: string[], until: number}} Signed */

/** Signed URLs by job and number of images. @type {Map<string, Promise<Signed>>} */
const signed = new Map();
const SPARE_MS = 30_000;

/**
 * The URL of an image of a job.
 * @param {Pick<Job, "id" | "images">} job @param {number} index
 */
export async function pictureUrl(job, index = 0) {
  if (!readKey()) return reachable(job.images[index]?.url ?? "");
  const name = `${job.id} ${job.images.length}`;
  let found = await signed.get(name);
  if (!found || found.until < Date.now()) {
    const fresh = sign(job.id);
    signed.set(name, fresh);
    fresh.catch(() => signed.delete(name));
    found = await fresh;
  }
  return found.urls[index] ?? "";
}

/** @param {string} id @returns {Promise<Signed>} */
async function sign(id) {
  const { images, expires_at } = await links(id);
  return { urls: images.map(reachable), until: Date.parse(expires_at) - SPARE_MS };
}

/** The name of an image, which requests may use as `init_image`. @param {string} url */
export function nameOf(url) {
  return new URL(url, document.baseURI).pathname.split("/").at(-1) ?? "";
}
