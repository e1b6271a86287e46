// Splits a prompt into its tags and puts it together again, without loss: what is not edited stays as it was written.

/** A tag or a sentence; `before` is what separates it from the one before. @typedef {{before: string, text: string}} Segment */
/** @typedef {{segments: Segment[], tail: string}} Prompt */

/** Split at commas and line ends outside of brackets. @param {string} text @returns {Prompt} */
export function split(text) {
  // A bracket without a partner is plain text.
  return splitAt(text, true) ?? splitAt(text, false) ?? { segments: [], tail: text };
}

/** @param {string} text @param {boolean} hasBrackets @returns {Prompt | null} null if brackets are left open */
function splitAt(text, hasBrackets) {
  /** @type {Segment[]} */
  const segments = [];
  let depth = 0;
  let before = "";
  let word = "";
  const end = () => {
    const kept = word.trimEnd();
    if (kept) segments.push({ before, text: kept });
    before = kept ? word.slice(kept.length) : before + word;
    word = "";
  };
  for (const [character] of text.matchAll(/\\[^]|[^]/g)) {
    if (hasBrackets && character === "(") depth++;
    if (hasBrackets && character === ")" && --depth < 0) return null;
    if (!depth && (character === "," || character === "\n")) {
      end();
      before += character;
    } else if (!word && /\s/.test(character)) before += character;
    else word += character;
  }
  if (depth) return null;
  end();
  return { segments, tail: before };
}

/** @param {Prompt} prompt */
export function join({ segments, tail }) {
  return segments.map(({ before, text }) => before + text).join("") + tail;
}

/** Without the segment. @param {Prompt} prompt @param {number} index @returns {Prompt} */
export function without({ segments, tail }, index) {
  const rest = segments.filter((_, place) => place !== index);
  const removed = segments[index];
  // The first one keeps what was before the first one: nothing, as a rule.
  if (index === 0 && rest[0] && removed) rest[0] = { ...rest[0], before: removed.before };
  return { segments: rest, tail: rest.length ? tail : "" };
}

/** With a new segment at the place. @param {Prompt} prompt @param {number} index @param {string} text @returns {Prompt} */
export function withNew({ segments, tail }, index, text) {
  const next = segments[index];
  const added = { before: index ? ", " : (next?.before ?? ""), text };
  const rest = [...segments];
  if (next && !index) rest[0] = { ...next, before: ", " };
  if (!next && index && /[,\n]/.test(tail)) {
    added.before = tail;
    tail = "";
  }
  rest.splice(index, 0, added);
  return { segments: rest, tail };
}

/** The segment at `from` before the one that is at `to` now. @param {Prompt} prompt @param {number} from @param {number} to @returns {Prompt} */
export function moved(prompt, from, to) {
  const segment = prompt.segments[from];
  if (!segment || from === to || from + 1 === to) return prompt;
  return withNew(without(prompt, from), to > from ? to - 1 : to, segment.text);
}

/** A changed text at the place. @param {Prompt} prompt @param {number} index @param {string} text @returns {Prompt} */
export function withText({ segments, tail }, index, text) {
  return { segments: segments.map((segment, place) => (place === index ? { ...segment, text } : segment)), tail };
}
