// The events of a job, read by `fetch` because EventSource sends no key. The stream goes on after interruptions.
/** @import {JobEvent} from "./types.js" */
import { call, pause, problemOf } from "./api.js";

const LAST = new Set(["succeeded", "failed", "cancelled"]);
const LONGEST_PAUSE = 8000;

/**
 * All events of a job up to the last one. A lost connection is made again, for as long as it takes.
 * @param {string} id @param {AbortSignal} signal
 * @returns {AsyncGenerator<JobEvent>}
 * @throws {import("./api.js").Problem} the job cannot be read: it is unknown or expired, or the key is wrong
 */
export async function* eventsOf(id, signal) {
  let lastId = "";
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      /** @type {Record<string, string>} */
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      const response = await call(`jobs/${id}/events`, { headers, signal });
      if (response.status === 204 || !response.body) return;
      for await (const event of parse(response.body)) {
        attempt = 0;
        lastId = event.id || lastId;
        yield event;
        if (LAST.has(event.name)) return;
      }
    } catch (error) {
      const { status } = problemOf(error);
      if (signal.aborted || (status >= 400 && status < 500 && status !== 429)) throw error;
    }
    await pause(Math.min(500 * 2 ** attempt, LONGEST_PAUSE), signal);
  }
}

/** Parse a stream of server-sent events. @param {ReadableStream<Uint8Array<ArrayBuffer>>} body @returns {AsyncGenerator<JobEvent>} */
export async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      // A "\r" at the end may be the first half of a "\r\n".
      text = (text + value).replace(/\r\n|\r(?!$)/g, "\n");
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        const event = parseEvent(text.slice(0, end));
        text = text.slice(end + 2);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block lines of an event @returns {JobEvent | null} null for comments and `retry` */
function parseEvent(block) {
  let id = "";
  let name = "";
  /** @type {string[]} */
  const data = [];
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]+)(?:: ?(.*))?$/.exec(line) ?? [];
    if (field === "id") id = value ?? "";
    else if (field === "event") name = value ?? "";
    else if (field === "data") data.push(value ?? "");
  }
  return name ? { id, name, data: JSON.parse(data.join("\n") || "{}") } : null;
}
