// Dry runs need the sizes of pictures only: a blank picture of the same size stands in for each.
/** @import {GenerationRequest} from "../service/types.js" */

/** Blank pictures by the picture that they stand for. @type {Map<string, string>} */
const blank = new Map();
const MOST = 8;

/** Make the stand-in of a picture. @param {string} picture a data URL @param {number} width @param {number} height */
export async function rememberSize(picture, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d");
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  blank.set(picture, `data:image/png;base64,${btoa(text)}`);
  for (const oldest of blank.keys()) {
    if (blank.size <= MOST) break;
    blank.delete(oldest);
  }
}

/** The request with stand-ins for its pictures. @param {Partial<GenerationRequest>} request */
export function light(request) {
  const lighter = { ...request };
  if (request.init_image) lighter.init_image = blank.get(request.init_image) ?? request.init_image;
  if (request.mask) lighter.mask = blank.get(request.mask) ?? request.mask;
  return lighter;
}
