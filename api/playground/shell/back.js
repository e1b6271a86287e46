// Back, or its gesture on a phone, closes a large dialog and stays on the page.

/** @type {Set<HTMLDialogElement>} */
const dialogs = new Set();

// An entry of the history stands for the open dialog. It is left by going back, which takes a moment.
let isLeaving = false;
const enter = () => history.pushState({ isOpen: true }, "");
const leave = () => {
  isLeaving = true;
  history.back();
};
if (history.state?.isOpen) leave(); // the page was loaded anew while a dialog was open

addEventListener("popstate", () => {
  const dialog = [...dialogs].find(({ open }) => open);
  if (!isLeaving) dialog?.close();
  else if (dialog) enter(); // it was opened in this moment
  isLeaving = false;
});

/** @param {HTMLDialogElement} dialog @param {AbortSignal} signal */
export function closeOnBack(dialog, signal) {
  dialogs.add(dialog);
  signal.addEventListener("abort", () => dialogs.delete(dialog));
  dialog.addEventListener("toggle", ({ newState }) => {
    if (newState === "open" && !isLeaving) enter();
    if (newState === "closed" && history.state?.isOpen && !isLeaving) leave();
  }, { signal });
}
