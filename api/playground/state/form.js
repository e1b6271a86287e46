// From the form to a request and back.
/** @import {Form, GenerationRequest, ResolvedRequest} from "../service/types.js" */
import { EMPTY_FORM, store } from "./store.js";

const SEED_END = 2 ** 32 - 8;

/** The body of a request: the form without what takes its default. @param {Form} form @returns {Partial<GenerationRequest>} */
export function requestOf(form) {
  const entries = Object.entries(form).filter(([, value]) => value !== null && value !== undefined);
  const request = Object.fromEntries(entries);
  // The service says what it drops; a comma after the last tag is not worth a warning.
  request.prompt = form.prompt.replace(/[\s,]+$/, "").replace(/[^\S\n]+$/gm, "").trimStart();
  if (!form.loras.length) delete request.loras;
  return request;
}

/** Fill the form with the settings of a job or of a picture, its seed included. @param {Partial<ResolvedRequest>} request */
export function useRequest(request) {
  const { width, height, ...fields } = request;
  const known = store.state.capabilities?.resolutions.find((size) => size.width === width && size.height === height);
  /** @type {any} */
  const form = { ...EMPTY_FORM, ...fields, previews: true };
  if (width && height) form.resolution = known?.name ?? `${width}x${height}`;
  form.seed = request.seed ?? randomSeed();
  form.loras = (request.loras ?? []).map(({ name, weight }) => ({ name, weight }));
  if (request.hires) {
    const { scale, steps, strength, upscaler } = request.hires;
    form.hires = { scale, steps, strength, upscaler };
  }
  store.set("form", form);
  store.arrange({ isSeedLocked: request.seed !== undefined && request.seed !== null });
}

/** A seed such that the seeds of all images of a job are below 2^32, as other programs expect. */
export function randomSeed() {
  const [value = 0] = crypto.getRandomValues(new Uint32Array(1));
  return value % SEED_END;
}

/** Width and height of the form. @param {Form} form @returns {[number, number]} */
export function sizeOf(form) {
  const { resolutions, defaults } = store.state.capabilities ?? { resolutions: [], defaults: { resolution: "" } };
  const name = form.resolution ?? defaults.resolution;
  const preset = resolutions.find((size) => size.name === name);
  if (preset) return [preset.width, preset.height];
  const [width, height] = name.split("x").map(Number);
  return [width || 0, height || 0];
}
