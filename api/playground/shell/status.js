// The name of the model, and whether somebody is there to run it.
/** @import {Capabilities} from "../service/types.js" */
import * as api from "../service/api.js";
import { store } from "../state/store.js";
import { make, Part } from "./part.js";

const REFRESH_MS = 5000;

class Status extends Part {
  start() {
    this.setAttribute("role", "status");
    this.follow("capabilities", () => this.#show());
    this.follow("isOffline", () => this.#show());
    this.#refresh().catch(() => {});
  }

  #show() {
    const { capabilities, isOffline } = store.state;
    const [kind, text] = isOffline ? ["error", "The service does not answer. Trying again …"] : describe(capabilities);
    if (this.dataset.kind === kind && this.dataset.text === text) return;
    Object.assign(this.dataset, { kind, text });
    const about = capabilities ? [capabilities.summary, ...capabilities.limitations.map(({ detail }) => detail)] : [];
    this.replaceChildren(
      make("strong", { title: about.join("\n") }, capabilities?.title ?? ""),
      make("span", { className: "state" }, text),
    );
  }

  /** Until a worker is ready, or the service is back. */
  async #refresh() {
    for (;;) {
      await api.pause(REFRESH_MS, this.signal);
      const { capabilities, isOffline } = store.state;
      if (!capabilities || (!isOffline && describe(capabilities)[0] === "ready")) continue;
      const found = await api.capabilities().catch(() => null);
      if (found) store.set("capabilities", found);
    }
  }
}

/** @param {Capabilities | null} capabilities @returns {[kind: string, text: string]} */
function describe(capabilities) {
  if (!capabilities) return ["wait", ""];
  const { workers } = capabilities;
  if (!workers.length) return ["error", "no worker is running"];
  return workers.some((worker) => worker.is_warm) ? ["ready", "ready"] : ["wait", "loading the model"];
}

customElements.define("kz-status", Status);
