// The settings that made a picture; of two pictures, those of both where they differ.
/** @import {Entry} from "../gallery/collection.js" */
import { make, Part } from "../shell/part.js";

export class Recipe extends Part {
  /** @param {Entry} entry @param {Entry | null} other a picture to compare with, which is on the left */
  show(entry, other) {
    const facts = factsOf(entry);
    const others = other ? factsOf(other) : facts;
    const names = [...new Set([...facts.keys(), ...others.keys()])];
    const shown = other ? names.filter((name) => facts.get(name) !== others.get(name)) : names;
    const rows = shown.map((name) => row(name, other ? [others.get(name) ?? "–", facts.get(name) ?? "–"] : [facts.get(name) ?? ""]));
    const text = other ? (shown.length ? "Left, and right:" : "Both have the same settings.") : "";
    this.replaceChildren(make("p", { className: "hint" }, text), make("dl", {}, ...rows));
  }
}

/** @param {string} name @param {string[]} values */
function row(name, values) {
  const isLong = values.some((value) => value.length > 18);
  return make("div", { className: isLong ? "long" : "" }, make("dt", {}, name), ...values.map((value) => make("dd", { dir: "auto" }, value)));
}

/** Names and values, as people read them. @param {Entry} entry @returns {Map<string, string>} */
export function factsOf({ job, index }) {
  const { request, recipe } = job;
  const image = job.images[index];
  const hires = request.hires;
  const options = Object.entries(request.sampler_options ?? {}).map(([name, value]) => `${name} ${value}`);
  /** @type {[string, string | null | undefined | false][]} */
  const all = [
    ["Prompt", request.prompt],
    ["Negative prompt", request.negative_prompt],
    ["Seed", String(image?.seed ?? request.seed)],
    ["Size", `${image?.width ?? request.width} × ${image?.height ?? request.height}`],
    ["Sampler", [request.sampler, request.scheduler, ...options].join(", ")],
    ["Steps", String(request.steps)],
    ["Exactness", request.quality !== "exact" && request.quality],
    ["CFG", String(request.cfg_scale)],
    ["LoRAs", request.loras?.map(({ name, weight }) => `${name} ${weight}`).join(", ")],
    ["Starts from", request.init_image && `a picture, strength ${request.strength}${request.mask ? ", with a mask" : ""}`],
    ["Second pass", hires && `${hires.width} × ${hires.height}, ${hires.steps} steps, strength ${hires.strength}`],
    ["Checkpoint", recipe && [recipe.card, recipe.checkpoint.slice(0, 10), recipe.precision].filter(Boolean).join(", ")],
    ["Made", job.finished_at && new Date(job.finished_at).toLocaleString()],
    ["File", image && `${image.format}, ${Math.max(1, Math.round(image.bytes / 1000))} kB`],
  ];
  return new Map(all.flatMap(([name, value]) => (value ? [[name, value]] : [])));
}

customElements.define("kz-recipe", Recipe);
