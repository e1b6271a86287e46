// What the programs share: named checks and their results.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";

export const URL_ = process.env.CHECKS_URL;
export const HELD_URL = process.env.CHECKS_HELD_URL;
export const KEY = process.env.CHECKS_KEY;
export const PROMPT = "masterpiece, best quality, 1girl, blue hair, smile";

const results = {};
process.on("exit", () => {
  if (process.env.CHECKS_RESULTS) writeFileSync(process.env.CHECKS_RESULTS, JSON.stringify(results));
});

/** Run the function; the check has failed if it throws. Returns what the function returns. */
export async function check(name, run) {
  try {
    const value = await run();
    results[name] = null;
    return value;
  } catch (error) {
    console.error(error);
    results[name] = `${error?.name}: ${error?.message}`.slice(0, 300);
  }
}

/** The ids of all jobs made with the key. */
export async function ownJobs() {
  const headers = { authorization: `Bearer ${KEY}` };
  const page = await (await fetch(`${URL_}/jobs?limit=100`, { headers })).json();
  return new Set(page.items.map((job) => job.id));
}

/** Call the function, which must make exactly one job; its result. */
export async function makesOneJob(run) {
  const before = await ownJobs();
  const value = await run();
  const made = [...(await ownJobs())].filter((id) => !before.has(id));
  assert.equal(made.length, 1, `${made.length} jobs were made`);
  return value;
}

/** Whether the bytes are a PNG, JPEG or WebP file. */
export function isImage(data) {
  const [a, b] = data;
  return (a === 0x89 && b === 0x50) || (a === 0xff && b === 0xd8) || (a === 0x52 && b === 0x49);
}

/** The error that the function throws. */
export async function thrownBy(run) {
  try {
    await run();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}
