// What the page knows about tags: their groups, by the service and the card, and how a prompt writes them.
/** @import {CompletedTag, TagGroup} from "../service/types.js" */
import * as api from "../service/api.js";
import { store } from "../state/store.js";
import { readWeight } from "./weights.js";

const MOST_CALLS = 4;
const SEARCHED = 20;

/** Groups by plain tag. @type {Map<string, TagGroup>} */
const known = new Map();

/** Whether words begin with the mark of an artist: `@wlop` does, and the emoticon `@_@` does not. @param {string} words */
function isMarked(words) {
  const mark = store.state.capabilities?.prompting.artist_prefix;
  return Boolean(mark) && words.startsWith(mark ?? "") && !words.startsWith(`${mark}_`);
}

/** A tag as lists have it: without weight, escapes, and the mark of an artist. @param {string} text */
export function plainTag(text) {
  const { words } = readWeight(text);
  const bare = words.replace(/\\([()])/g, "$1").replaceAll("_", " ").toLowerCase().trim();
  return isMarked(words.trim()) ? bare.slice(store.state.capabilities?.prompting.artist_prefix.length) : bare;
}

/** A tag as a prompt has it. @param {string} tag @param {string} group */
export function promptText(tag, group) {
  const mark = store.state.capabilities?.prompting.artist_prefix ?? "";
  const escaped = tag.replace(/[()]/g, "\\$&");
  return group === "artist" && !escaped.startsWith(mark) ? mark + escaped : escaped;
}

/** The group of a tag: the user's choice, what is known, or general. @param {string} text @returns {TagGroup} */
export function groupOf(text) {
  const tag = plainTag(text);
  if (isMarked(readWeight(text).words.trim())) return store.state.view.groups[tag] ?? "artist";
  return store.state.view.groups[tag] ?? cardGroup(tag) ?? known.get(tag) ?? "general";
}

/** @param {string} tag @returns {TagGroup | undefined} */
function cardGroup(tag) {
  const prompting = store.state.capabilities?.prompting;
  if (!prompting) return undefined;
  const { quality, meta, safety, subject } = prompting;
  const groups = Object.entries({ quality, meta, safety, subject });
  return /** @type {TagGroup | undefined} */ (groups.find(([, words]) => words.includes(tag))?.[0]);
}

/** Remember what the service has told. @param {CompletedTag[]} items */
export function learn(items) {
  for (const { tag, category, alias_of } of items) {
    known.set(tag, category);
    if (alias_of) known.set(alias_of, category);
  }
}

/** Ask for the groups of tags that are not known yet. @param {string[]} texts @returns {Promise<boolean>} whether some are known now */
export async function lookUp(texts) {
  const unknown = [...new Set(texts.map(plainTag))].filter((tag) => tag && tag.length <= 100 && !known.has(tag) && !cardGroup(tag));
  const waiting = [...unknown];
  const work = async () => {
    for (let tag = waiting.pop(); tag !== undefined; tag = waiting.pop()) {
      learn(await api.tags(tag, SEARCHED));
      if (!known.has(tag)) known.set(tag, "general");
    }
  };
  // What the service does not tell stays general.
  await Promise.allSettled(Array.from({ length: MOST_CALLS }, work));
  return unknown.length > 0;
}
