// Reads picture files for requests.
/** @import {Capabilities} from "../service/types.js" */
import { rememberSize } from "../state/stand_ins.js";

/**
 * A file as a data URL, and its size. A picture above the limits is scaled down to them, and one of many bytes to the
 * pixels that a result can have: a request holds it in base64, perhaps with a mask. The first frame stands for an animation.
 * @param {Blob} file @param {Capabilities} capabilities @param {boolean} isForeign the service does not read the file
 */
export async function readPicture(file, { features, limits: { max_pixels } }, isForeign) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("the browser cannot read it as a picture");
  });
  const { width, height } = bitmap;
  const pixels = file.size > features.max_body_bytes / 4 ? Math.min(max_pixels, features.max_input_pixels) : features.max_input_pixels;
  const scale = Math.min(1, features.max_input_side / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  const isKnown = !isForeign && features.input_formats.some((name) => file.type === `image/${name}`);
  const size = { width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale)) };
  const sent = scale < 1 || !isKnown ? await redrawn(bitmap, size) : file;
  bitmap.close();
  const text = await dataUrl(sent);
  await rememberSize(text, size.width, size.height);
  return { text, ...size };
}

/** @param {ImageBitmap} bitmap @param {{width: number, height: number}} size */
async function redrawn(bitmap, { width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the browser cannot draw");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/png" });
}

/** @param {Blob} blob @returns {Promise<string>} */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/**
 * The size at which a request keeps the shape of a picture: a preset's name, or WIDTHxHEIGHT.
 * @param {number} width @param {number} height @param {Capabilities} capabilities
 */
export function fittedSize(width, height, { limits, resolutions }) {
  const { multiple, min_side: least, max_side: most, max_pixels: pixels } = limits;
  const down = Math.min(1, most / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  const scale = Math.max(down, least / Math.min(width, height));
  const side = (/** @type {number} */ length) => Math.min(Math.floor(most / multiple) * multiple, Math.max(Math.ceil(least / multiple) * multiple, Math.round((length * scale) / multiple) * multiple));
  let [fittedWidth, fittedHeight] = [side(width), side(height)];
  while (fittedWidth * fittedHeight > pixels) {
    if (fittedWidth > fittedHeight) fittedWidth -= multiple;
    else fittedHeight -= multiple;
  }
  const preset = resolutions.find((one) => one.width === fittedWidth && one.height === fittedHeight);
  return preset?.name ?? `${fittedWidth}x${fittedHeight}`;
}
