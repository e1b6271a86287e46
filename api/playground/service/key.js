// The API key. It lives as long as the tab and is sent in a header only, never in a URL.

const NAME = "kirazuri.key";

/** The key, or "" if there is none. */
export function readKey() {
  return sessionStorage.getItem(NAME) ?? "";
}

/** @param {string} key "" forgets the key. */
export function writeKey(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
}
