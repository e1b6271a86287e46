// What the browser keeps between visits: the form, favourites, the theme. Never the API key.

/** @template T @param {string} name @param {T} fallback @returns {T} */
export function readSaved(name, fallback) {
  try {
    const text = localStorage.getItem(`kirazuri.${name}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/** Pictures in base64 are too large to be kept. @param {string} name @param {unknown} value */
export function save(name, value) {
  const text = JSON.stringify(value, (_, field) => (typeof field === "string" && field.length > 50_000 ? undefined : field));
  try {
    localStorage.setItem(`kirazuri.${name}`, text);
  } catch {
    // The browser keeps nothing, or is full: the page works without.
  }
}
