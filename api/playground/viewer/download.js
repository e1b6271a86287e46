// Saves a picture: the file as it is, or its pixels alone.
/** @import {StoredImage} from "../service/types.js" */
import { imageFile } from "../service/api.js";
import { nameOf } from "../service/pictures.js";

const NAME_CHARS = 40;

/** @param {StoredImage} image @param {boolean} hasMetadata @param {string} prompt for the file's name */
export async function download(image, hasMetadata, prompt) {
  const file = await imageFile(image.url);
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, NAME_CHARS).replace(/^-+|-+$/g, "");
  const name = `${words || "picture"}-${image.seed}`;
  if (hasMetadata) return save(file, `${name}.${nameOf(image.url).split(".").at(-1)}`);
  save(await pixelsOf(file), `${name}-plain.png`);
}

/** The pixels in a new PNG file: nothing else that the old file holds can be in it. @param {Blob} file */
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/png" });
}

/** @param {Blob} file @param {string} name */
function save(file, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  // The browser reads the file while it saves it.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
