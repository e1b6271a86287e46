// Where a character of a text field is on the screen.

const COPIED = /** @type {const} */ ([
  "boxSizing", "width", "paddingTop", "paddingRight", "paddingBottom", "paddingLeft", "borderTopWidth", "borderRightWidth",
  "borderBottomWidth", "borderLeftWidth", "fontFamily", "fontSize", "fontWeight", "letterSpacing", "lineHeight", "tabSize", "direction",
]);

/** Left, top and bottom of the character at the place, in the window. @param {HTMLTextAreaElement | HTMLInputElement} field @param {number} place */
export function caretOf(field, place) {
  const style = getComputedStyle(field);
  // A copy of the field that the browser lays out in the same way; a text field itself does not tell.
  const copy = document.createElement("div");
  for (const name of COPIED) copy.style[name] = style[name];
  Object.assign(copy.style, { position: "fixed", top: "0", left: "0", visibility: "hidden", overflowWrap: "break-word" });
  copy.style.whiteSpace = field instanceof HTMLInputElement ? "pre" : "pre-wrap";
  const mark = document.createElement("span");
  mark.textContent = field.value.slice(place) || ".";
  copy.append(field.value.slice(0, place), mark);
  document.body.append(copy);
  const box = field.getBoundingClientRect();
  const line = Number.parseFloat(style.lineHeight) || Number.parseFloat(style.fontSize) * 1.4;
  const left = box.left + mark.offsetLeft - field.scrollLeft;
  const top = box.top + mark.offsetTop - field.scrollTop;
  copy.remove();
  return { left, top, bottom: Math.min(top + line, box.bottom) };
}
