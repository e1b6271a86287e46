// Keys that work everywhere: Ctrl+Enter makes, Esc cancels, ? lists the keys.
import { cancel, hasEnded } from "../state/runs.js";
import { store } from "../state/store.js";
import { Help } from "./help.js";

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    const isInDialog = document.querySelector("dialog[open]") !== null;
    if (event.defaultPrevented || event.isComposing || isInDialog) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      document.dispatchEvent(new Event("kz-make"));
    } else if (event.key === "Escape" && store.state.comparing) {
      store.set("comparing", null);
    } else if (event.key === "Escape") {
      const run = store.state.runs.get(store.state.shown ?? "");
      if (run && !hasEnded(run.job)) cancel(run.job.id);
    } else if (event.key === "?" && !isTyping(event.target)) {
      event.preventDefault();
      const help = document.querySelector("kz-help");
      if (help instanceof Help) help.open();
    }
  });
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof Element && target.matches("textarea, input:not([type=range], [type=checkbox], [type=radio])");
}
