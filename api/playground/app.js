// Starts the page: defines the elements, then asks the service what it offers.
import "./shell/notes.js";
import "./shell/slider.js";
import "./shell/status.js";
import "./shell/key.js";
import "./shell/theme.js";
import "./shell/help.js";
import "./making/prompt.js";
import "./making/negative.js";
import "./making/size.js";
import "./making/sampling.js";
import "./making/seed.js";
import "./making/loras.js";
import "./making/advanced.js";
import "./making/make.js";
import "./watching/run.js";
import "./watching/queue.js";
import "./picture/picture.js";
import "./gallery/gallery.js";
import "./viewer/viewer.js";
import * as api from "./service/api.js";
import { startKeys } from "./shell/keyboard.js";
import { startPlanning } from "./state/planning.js";
import { forget, resume } from "./state/runs.js";
import { store } from "./state/store.js";

/** Ask until the service answers, then again whenever a key is entered. */
async function connect() {
  for (;;) {
    try {
      store.set("capabilities", await api.capabilities());
      await resume();
      return;
    } catch (error) {
      if (api.problemOf(error).status === 401) return;
      await api.pause(2000);
    }
  }
}

document.addEventListener("kz-key", () => {
  // The jobs of another key are none of this one's.
  forget();
  connect();
});
startKeys();
startPlanning();
connect();
