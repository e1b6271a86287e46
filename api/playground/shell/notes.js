// <kz-notes for="steps">: warnings and errors of a field, which is the element with `data-field="steps"`.
// <kz-notes for="request"> shows the rest: what concerns no field, or one that the form does not have.
import { make, Part } from "./part.js";

class Notes extends Part {
  start() {
    const field = this.getAttribute("for") ?? "";
    this.id = `notes-${field}`;
    this.follow("notes", (all) => {
      const notes = all.filter((note) => note.field === field || (field === "request" && !hasPlace(note.field)));
      this.hidden = !notes.length;
      this.replaceChildren(
        ...notes.map(({ text, isError, code }) => make("p", { data: { code, kind: isError ? "error" : "warning" } }, text)),
      );
      this.#mark(field, notes.length > 0, notes.some((note) => note.isError));
    });
  }

  /** Tell screen readers, and open what hides an error. @param {string} field @param {boolean} hasNotes @param {boolean} isWrong */
  #mark(field, hasNotes, isWrong) {
    for (const control of document.querySelectorAll(`[data-field="${field}"]`)) {
      if (hasNotes) control.setAttribute("aria-describedby", this.id);
      else control.removeAttribute("aria-describedby");
      if (isWrong) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
    const folded = this.closest("details");
    if (isWrong && folded) folded.open = true;
  }
}

/** @param {string} field */
const hasPlace = (field) => document.querySelector(`kz-notes[for="${CSS.escape(field)}"]`) !== null;

customElements.define("kz-notes", Notes);
