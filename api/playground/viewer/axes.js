// What a grid changes: the settings that can vary, the values that a user writes, and the requests of the cells.
/** @import {GenerationRequest, ResolvedRequest} from "../service/types.js" */
import { store } from "../state/store.js";

export const MOST = 5;

/**
 * @typedef {object} Axis
 * @property {string} name such as "steps" or "lora ink"
 * @property {string} label
 * @property {string} example values to begin with
 * @property {(text: string) => string} check what is wrong with a value; "" if nothing
 * @property {(request: Partial<GenerationRequest>, text: string) => Partial<GenerationRequest>} apply
 */

/** The settings of a picture that can vary. @param {ResolvedRequest} request @returns {Axis[]} */
export function axesOf(request) {
  const { capabilities } = store.state;
  if (!capabilities) return [];
  const { limits, samplers } = capabilities;
  const names = samplers.map(({ name }) => name);
  const others = names.filter((name) => name !== request.sampler).slice(0, 2);
  const { steps, cfg_scale: cfg, seed } = request;
  /** @type {Axis[]} */
  const axes = [
    {
      name: "steps", label: "Steps", example: unique([Math.max(1, Math.round(steps / 2)), steps, Math.min(limits.max_steps, Math.round(steps * 1.5))]),
      check: number(1, limits.max_steps, true), apply: (base, text) => ({ ...base, steps: Number(text) }),
    },
    {
      name: "cfg_scale", label: "CFG", example: unique([Math.max(1, cfg - 1.5), cfg, cfg + 1.5]),
      check: number(0, Infinity, false), apply: (base, text) => ({ ...base, cfg_scale: Number(text) }),
    },
    {
      name: "sampler", label: "Sampler", example: [request.sampler, ...others].join(", "),
      check: (text) => (names.includes(text) ? "" : `“${text}” is none of ${names.join(", ")}`),
      apply: (base, text) => text === request.sampler ? base : { ...base, sampler: /** @type {any} */ (text), sampler_options: {}, quality: "exact" },
    },
    {
      name: "seed", label: "Seed", example: [seed, seed + 1, seed + 2].join(", "),
      check: number(0, Number.MAX_SAFE_INTEGER, true), apply: (base, text) => ({ ...base, seed: Number(text) }),
    },
  ];
  for (const lora of request.loras ?? []) {
    axes.push({
      name: `lora ${lora.name}`, label: `Weight of ${lora.name}`, example: unique([0, lora.weight / 2, lora.weight]),
      check: number(-10, 10, false),
      apply: (base, text) => ({ ...base, loras: (base.loras ?? []).map((one) => (one.name === lora.name ? { ...one, weight: Number(text) } : one)) }),
    });
  }
  return axes;
}

/** @param {number[]} values */
function unique(values) {
  return [...new Set(values.map((value) => Number(value.toFixed(2))))].join(", ");
}

/** @param {number} least @param {number} most @param {boolean} isWhole */
function number(least, most, isWhole) {
  return (/** @type {string} */ text) => {
    const value = Number(text);
    if (!text || Number.isNaN(value)) return `“${text}” is no number`;
    if (isWhole && !Number.isInteger(value)) return `${text} is no whole number`;
    return value < least || value > most ? `${text} is not between ${least} and ${most}` : "";
  };
}

/** The values of a text such as "10, 20", or what is wrong. @param {Axis} axis @param {string} text @returns {{values: string[], error: string}} */
export function valuesOf(axis, text) {
  const values = [...new Set(text.split(/[\s,;]+/).filter(Boolean))];
  const wrong = values.map(axis.check).find(Boolean);
  if (wrong) return { values, error: `${axis.label}: ${wrong}.` };
  if (!values.length) return { values, error: `${axis.label}: write at least one value.` };
  return { values, error: values.length > MOST ? `${axis.label}: at most ${MOST} values.` : "" };
}

/** The request for one more picture with these settings. @param {ResolvedRequest} request @returns {Partial<GenerationRequest>} */
export function requestFor(request) {
  const { width, height, loras, hires, init_image, mask, strength, ...fields } = request;
  /** @type {any} */
  const body = { ...fields, num_images: 1, previews: false, resolution: `${width}x${height}` };
  if (loras?.length) body.loras = loras.map(({ name, weight }) => ({ name, weight }));
  if (hires) body.hires = { scale: hires.scale, steps: hires.steps, strength: hires.strength, upscaler: hires.upscaler };
  if (init_image) Object.assign(body, { init_image, strength });
  if (mask) body.mask = mask;
  return body;
}
