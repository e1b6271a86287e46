// The other jobs in progress; a click shows one.
import { cancel, hasEnded, show } from "../state/runs.js";
import { store } from "../state/store.js";
import { make, Part } from "../shell/part.js";

class Queue extends Part {
  start() {
    this.follow("runs", () => this.#show());
    this.follow("shown", () => this.#show());
    this.listen("click", ".open", (_, target) => show(target.dataset.id ?? ""));
    this.listen("click", ".stop", (_, target) => cancel(target.dataset.id ?? ""));
  }

  #show() {
    const { runs, shown } = store.state;
    const others = [...runs.values()].filter(({ job }) => !hasEnded(job) && job.id !== shown);
    this.hidden = !others.length;
    this.replaceChildren(make("h2", {}, "Also in progress"), make("ul", {}, ...others.map(({ job }) => row(job))));
  }
}

/** @param {import("../service/types.js").Job} job */
function row({ id, status, progress, request }) {
  const state = status === "running" ? `${Math.round(progress.fraction * 100)} %` : "waiting";
  const open = make("button", { type: "button", className: "open quiet", data: { id } }, make("span", { className: "name", dir: "auto" }, request.prompt), make("span", { className: "hint" }, state));
  const stop = make("button", { type: "button", className: "stop quiet", data: { id }, aria: { label: "Cancel this job" } }, "×");
  return make("li", {}, open, stop);
}

customElements.define("kz-queue", Queue);
