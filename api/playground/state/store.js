// The state of the page. Everything that several elements show is here; changes are events.
/** @import {Form, State, View} from "../service/types.js" */
import { readSaved, save } from "./saved.js";

/** @type {Form} */
export const EMPTY_FORM = { prompt: "", loras: [], num_images: 1, previews: true };

/** @type {View} */
const EMPTY_VIEW = { isText: true, isSeedLocked: false, groups: {} };

/** State with an event for each key: `store.on("plan", show)`. */
class Store extends EventTarget {
  /** @type {State} */
  state = {
    capabilities: null,
    form: { ...EMPTY_FORM, ...readSaved("form", {}) },
    view: { ...EMPTY_VIEW, ...readSaved("view", {}) },
    plan: null,
    notes: [],
    runs: new Map(),
    shown: null,
    viewing: null,
    comparing: null,
    finished: null,
    keyReason: "",
    isOffline: false,
  };

  /** @template {keyof State} K @param {K} key @param {State[K]} value */
  set(key, value) {
    if (this.state[key] === value) return;
    this.state[key] = value;
    if (key === "form" || key === "view") save(key, value);
    this.dispatchEvent(new Event(key));
  }

  /** Change some fields of the form. @param {Partial<Form>} fields */
  edit(fields) {
    this.set("form", { ...this.state.form, ...fields });
  }

  /** Change how the form is shown. @param {Partial<View>} fields */
  arrange(fields) {
    this.set("view", { ...this.state.view, ...fields });
  }

  /**
   * Call the handler with the value now and after each change.
   * @template {keyof State} K @param {K} key @param {(value: State[K]) => void} handler @param {AbortSignal} [signal]
   */
  on(key, handler, signal) {
    this.addEventListener(key, () => handler(this.state[key]), { signal });
    handler(this.state[key]);
  }
}

export const store = new Store();
