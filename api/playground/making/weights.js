// Weights of a prompt: `(words:1.2)`.

const STEP = 0.1;
const MOST = 10;
const WEIGHTED = /^\(((?:\\[^]|[^\\])*):\s*(\d*\.?\d+)\)$/;

/** The words without their weight. @param {string} text @returns {{words: string, weight: number}} */
export function readWeight(text) {
  const [, words, weight] = WEIGHTED.exec(text) ?? [];
  if (words !== undefined && isBalanced(words)) return { words, weight: Number(weight) };
  return { words: text, weight: 1 };
}

/** The words with a weight; without one if it is 1. @param {string} words @param {number} weight */
export function writeWeight(words, weight) {
  const rounded = Math.round(Math.min(MOST, Math.max(0, weight)) * 100) / 100;
  return rounded === 1 ? words : `(${words}:${rounded})`;
}

/** More (`direction` 1) or less (-1) weight. @param {string} text @param {number} direction */
export function reweighted(text, direction) {
  const { words, weight } = readWeight(text);
  return writeWeight(words, weight + direction * STEP);
}

/**
 * The part of the text that a change of weight replaces: the selection with the brackets around it, or the tag
 * at the cursor.
 * @param {string} text @param {number} start @param {number} end @returns {[number, number]}
 */
export function weightedRange(text, start, end) {
  if (start === end) [start, end] = tagAt(text, start);
  while (start < end && /[\s,]/.test(text[start] ?? "")) start++;
  while (end > start && /[\s,]/.test(text[end - 1] ?? "")) end--;
  const [after] = /^\s*:\s*\d*\.?\d+\)/.exec(text.slice(end)) ?? [];
  if (text[start - 1] === "(" && text[start - 2] !== "\\" && after) return [start - 1, end + after.length];
  return [start, end];
}

/** Bounds of the tag at the cursor. @param {string} text @param {number} at @returns {[number, number]} */
function tagAt(text, at) {
  const open = text.lastIndexOf("(", at - 1);
  const [inside] = open >= 0 && text[open - 1] !== "\\" ? (/^\((?:\\[^]|[^\\()])*:\s*\d*\.?\d+\)/.exec(text.slice(open)) ?? []) : [];
  if (inside && open + inside.length >= at) return [open, open + inside.length];
  const start = Math.max(text.lastIndexOf(",", at - 1), text.lastIndexOf("\n", at - 1)) + 1;
  const [rest = ""] = /^[^,\n]*/.exec(text.slice(at)) ?? [];
  return [start, at + rest.length];
}

/** @param {string} text */
function isBalanced(text) {
  let depth = 0;
  for (const [character] of text.matchAll(/\\[^]|[^]/g)) {
    if (character === "(") depth++;
    if (character === ")" && --depth < 0) return false;
  }
  return depth === 0;
}
