// Strokes of a mask on a canvas: opaque where the picture is made anew.

/** @typedef {[number, number]} Point in pixels of the picture */
/** @typedef {{kind: "stroke", points: Point[], size: number, isEraser: boolean} | {kind: "invert"} | {kind: "clear"}} Step */

const COLOUR = "#ff2d78";

/** Paint all steps anew. @param {HTMLCanvasElement} canvas @param {readonly Step[]} steps */
export function paint(canvas, steps) {
  const context = canvas.getContext("2d");
  if (!context) return;
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, canvas.width, canvas.height);
  Object.assign(context, { fillStyle: COLOUR, strokeStyle: COLOUR, lineCap: "round", lineJoin: "round" });
  for (const step of steps) {
    if (step.kind === "clear") context.clearRect(0, 0, canvas.width, canvas.height);
    else if (step.kind === "invert") {
      context.globalCompositeOperation = "xor";
      context.fillRect(0, 0, canvas.width, canvas.height);
    } else {
      context.globalCompositeOperation = step.isEraser ? "destination-out" : "source-over";
      drawStroke(context, step.points, step.size);
    }
  }
}

/** @param {CanvasRenderingContext2D} context @param {readonly Point[]} points @param {number} size */
function drawStroke(context, points, size) {
  const [start] = points;
  if (!start) return;
  const [left, top] = start;
  context.beginPath();
  if (points.every(([x, y]) => x === left && y === top)) {
    // Not every browser draws a line without a length.
    context.arc(left, top, size / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  context.lineWidth = size;
  context.moveTo(left, top);
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}

/** The mask of a request, white on black, as a data URL; null if it would be black. @param {HTMLCanvasElement} painted */
export function maskOf(painted) {
  const { width, height } = painted;
  const white = layer(width, height);
  white.drawImage(painted, 0, 0);
  if (!white.getImageData(0, 0, width, height).data.some(Boolean)) return null;
  white.globalCompositeOperation = "source-in";
  white.fillStyle = "#fff";
  white.fillRect(0, 0, width, height);
  const mask = layer(width, height);
  mask.fillStyle = "#000";
  mask.fillRect(0, 0, width, height);
  mask.drawImage(white.canvas, 0, 0);
  return mask.canvas.toDataURL("image/png");
}

/** @param {number} width @param {number} height */
function layer(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (!context) throw new Error("the browser cannot draw");
  return context;
}
