// Back, or its gesture on a phone, closes a large dialog and stays on the page.

/** @param {HTMLDialogElement} dialog @param {AbortSignal} signal */
export function closeOnBack(dialog, signal) {
  // An entry of the history stands for the open dialog. It is left by going back, which takes a moment.
  let isLeaving = false;
  const enter = () => history.pushState({ isOpen: true }, "");
  const leave = () => {
    isLeaving = true;
    history.back();
  };
  if (history.state?.isOpen) leave(); // the page was loaded anew while the dialog was open
  dialog.addEventListener("toggle", ({ newState }) => {
    if (newState === "open" && !isLeaving) enter();
    if (newState === "closed" && history.state?.isOpen && !isLeaving) leave();
  }, { signal });
  addEventListener("popstate", () => {
    if (!isLeaving) dialog.close();
    else if (dialog.open) enter(); // it was opened again in this moment
    isLeaving = false;
  }, { signal });
}
