// Weights of a prompt: `(words:1.2)`. Brackets without a number are a weight of 1.1, and nest.

const STEP = 0.1;
const MOST = 10;
const BRACKETS = 1.1;
const NUMBER = /:\s*-?\d*\.?\d+\s*$/;

/** A pair of brackets: the places of "(", of the end of its words, and behind ")". @typedef {{start: number, words: number, end: number}} Pair */

/** The words without their weight. @param {string} text @returns {{words: string, weight: number}} */
export function readWeight(text) {
  const { words, weight } = read(text);
  return { words, weight: rounded(weight) };
}

/** @param {string} text @returns {{words: string, weight: number, isNumber?: boolean}} */
function read(text) {
  const pair = pairsOf(text).at(-1);
  const words = pair ? text.slice(1, pair.words) : "";
  if (!pair || pair.start !== 0 || pair.end !== text.length || !words.trim()) return { words: text, weight: 1 };
  const number = text.slice(pair.words + 1, -1);
  if (number) return { words, weight: Number(number), isNumber: true };
  const inner = read(words);
  return inner.isNumber ? inner : { ...inner, weight: inner.weight * BRACKETS };
}

/** The words with a weight; without one if it is 1. @param {string} words @param {number} weight */
export function writeWeight(words, weight) {
  const shown = rounded(Math.min(MOST, Math.max(-MOST, weight)));
  return shown === 1 ? words : `(${words}:${shown})`;
}

/** More (`direction` 1) or less (-1) weight, but none below 0 that was not. @param {string} text @param {number} direction */
export function reweighted(text, direction) {
  const { words, weight } = readWeight(text);
  return writeWeight(words, weight < 0 ? weight + direction * STEP : Math.max(0, weight + direction * STEP));
}

/**
 * The part of the text that a change of weight replaces: the selection with the brackets around it and those that
 * it cuts, or the brackets or the tag at the cursor.
 * @param {string} text @param {number} start @param {number} end @returns {[number, number]}
 */
export function weightedRange(text, start, end) {
  const pairs = pairsOf(text);
  if (start === end) {
    const around = pairs.find((pair) => pair.start < start && start <= pair.end);
    [start, end] = around ? [around.start, around.end] : tagAt(text, start, pairs);
  }
  while (start < end && /[\s,]/.test(text[start] ?? "")) start++;
  while (end > start && /[\s,]/.test(text[end - 1] ?? "")) end--;
  for (const pair of pairs) {
    const isAll = pair.start + 1 === start && pair.words === end;
    const hasOpening = start <= pair.start && pair.start < end;
    const hasClosing = start < pair.end && pair.words < end;
    if (isAll || hasOpening !== hasClosing || (hasClosing && end < pair.end)) [start, end] = [Math.min(start, pair.start), Math.max(end, pair.end)];
  }
  return [start, end];
}

/** Bounds of the tag at the cursor, up to commas and line ends outside of brackets. @param {string} text @param {number} at @param {Pair[]} pairs @returns {[number, number]} */
function tagAt(text, at, pairs) {
  const ends = [...text.matchAll(/[,\n]/g)].map(({ index }) => index).filter((place) => !pairs.some((pair) => pair.start < place && place < pair.end));
  return [(ends.findLast((place) => place < at) ?? -1) + 1, ends.find((place) => place >= at) ?? text.length];
}

/** Pairs of brackets that are not escaped, inner ones before those around them. @param {string} text @returns {Pair[]} */
function pairsOf(text) {
  /** @type {number[]} */
  const opened = [];
  /** @type {Pair[]} */
  const pairs = [];
  for (const { 0: character, index } of text.matchAll(/\\[^]|[^]/g)) {
    if (character === "(") opened.push(index);
    const start = character === ")" ? opened.pop() : undefined;
    if (start === undefined) continue;
    const [number = ""] = NUMBER.exec(text.slice(start + 1, index)) ?? [];
    pairs.push({ start, words: index - number.length, end: index + 1 });
  }
  return pairs;
}

/** @param {number} weight */
const rounded = (weight) => Math.round(weight * 100) / 100;
