// All calls of the service. Errors are `Problem`s with the fields that are wrong.
/** @import {Capabilities, CompletedTag, FieldError, GenerationRequest, Job, JobLinks, JobList, Plan, ProblemBody, Verification} from "./types.js" */
import { store } from "../state/store.js";
import { readKey } from "./key.js";

/** The address of the page, which may lie below a prefix of a proxy. */
const BASE = new URL("./", document.baseURI);

/** An error response, or a service that does not answer (code `unreachable`, status 0). */
export class Problem extends Error {
  /** @param {Partial<ProblemBody>} body @param {number} retryAfter seconds */
  constructor(body, retryAfter = 0) {
    super(body.detail || body.title || "unknown error");
    this.status = body.status ?? 0;
    this.code = body.code ?? "unknown";
    this.title = body.title ?? "";
    /** @type {FieldError[]} */
    this.errors = body.errors ?? [];
    this.retryAfter = retryAfter;
  }
}

/** The problem of anything that was thrown. @param {unknown} error */
export function problemOf(error) {
  return error instanceof Problem ? error : new Problem({ code: "page", title: String(error) });
}

/**
 * Call the service; the response if it is no error.
 * @param {string} path without a leading slash
 * @param {{method?: string, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, isQuiet?: boolean}} options
 * `isQuiet`: do not ask for a key, because the user has asked for nothing
 */
export async function call(path, { method = "GET", body, headers = {}, signal, isQuiet = false } = {}) {
  const key = readKey();
  /** @type {Record<string, string>} */
  const sent = { ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  const isFile = body instanceof Blob;
  if (body !== undefined && !isFile) sent["Content-Type"] = "application/json";
  let response;
  try {
    const content = isFile ? body : body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(new URL(path, BASE), { method, headers: sent, body: content, signal, credentials: "omit" });
  } catch (error) {
    if (signal?.aborted) throw error;
    store.set("isOffline", true);
    throw new Problem({ code: "unreachable", title: "The service does not answer." });
  }
  store.set("isOffline", false);
  if (response.ok) return response;
  const problem = await readProblem(response);
  const isOfThisKey = key === readKey(); // another one may have been entered meanwhile
  if (problem.status === 401 && isOfThisKey && !isQuiet) store.set("keyReason", key ? "This key is not known." : "This service needs an API key.");
  throw problem;
}

/** @param {Response} response */
async function readProblem(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  try {
    return new Problem(await response.json(), retryAfter);
  } catch {
    // A proxy answers in its own words.
    return new Problem({ status: response.status, code: "proxy", title: `${response.status} ${response.statusText}` }, retryAfter);
  }
}

/** @param {string} path @param {Parameters<typeof call>[1]} [options] @returns {Promise<any>} */
async function json(path, options) {
  return (await call(path, options)).json();
}

/** @returns {Promise<Capabilities>} */
export const capabilities = () => json("capabilities");

/** Tags that start with the prefix. @param {string} prefix @param {number} limit @param {AbortSignal} [signal] @returns {Promise<CompletedTag[]>} */
export async function tags(prefix, limit, signal) {
  return (await json(`tags?prefix=${encodeURIComponent(prefix)}&limit=${limit}`, { signal, isQuiet: true })).items;
}

/**
 * What a request would do, and how many submissions the key has left: `pause` is the time in seconds
 * for which the page should not ask again by itself.
 * @param {Partial<GenerationRequest>} request @param {AbortSignal} signal
 * @returns {Promise<{plan: Plan, pause: number}>}
 */
export async function dryRun(request, signal) {
  const response = await call("generate?dry_run=true", { method: "POST", body: request, signal, isQuiet: true });
  return { plan: await response.json(), pause: pauseOf(response.headers) };
}

/** Dry runs count against a key's rate: leave half of it to pictures. @param {Headers} headers */
function pauseOf(headers) {
  const limit = /"rate";q=(\d+)/.exec(headers.get("RateLimit-Policy") ?? "");
  const left = /"rate";r=(\d+)(?:;t=(\d+))?/.exec(headers.get("RateLimit") ?? "");
  if (!limit || !left) return 0;
  return Number(left[1]) * 2 > Number(limit[1]) ? 0 : Number(left[2] ?? 1);
}

/** Submit a request once, however often the network fails meanwhile. @param {Partial<GenerationRequest>} request @returns {Promise<Job>} */
export async function submit(request) {
  const headers = { "Idempotency-Key": randomName() };
  for (let attempt = 1; ; attempt++) {
    try {
      return await json("generate", { method: "POST", body: request, headers });
    } catch (error) {
      if (problemOf(error).code !== "unreachable" || attempt === 3) throw error;
      await pause(attempt * 1000);
    }
  }
}

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Job>} */
export const job = (id, signal) => json(`jobs/${id}`, { signal });

/** A page of the own jobs, the newest first. @param {{cursor?: string | null, limit?: number, status?: Job["status"]}} query @returns {Promise<JobList>} */
export function jobs({ cursor, limit = 20, status } = {}) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  if (status) query.set("status", status);
  return json(`jobs?${query}`);
}

/** The newest of the own jobs. @param {number} limit @returns {Promise<Job[]>} */
export const newest = async (limit) => (await json(`jobs?limit=${limit}`, { isQuiet: true })).items;

/** @param {string} id @returns {Promise<Job>} */
export const cancel = (id) => json(`jobs/${id}`, { method: "DELETE" });

/** Run a job again with the same settings. @param {string} id @returns {Promise<Job>} */
export const replay = (id) => json(`jobs/${id}/replay`, { method: "POST" });

/** Delete an image. @param {string} url @returns {Promise<Response>} */
export const deleteImage = (url) => call(pathOf(url), { method: "DELETE" });

/** What a picture file tells of its origin. @param {Blob} file @returns {Promise<Verification>} */
export const verify = (file) => json("verify", { method: "POST", body: file });

/** The file of an image. @param {string} url @returns {Promise<Blob>} */
export const imageFile = async (url) => (await call(pathOf(url))).blob();

/** @param {string} url */
const pathOf = (url) => `images/${new URL(url, BASE).pathname.split("/").at(-1)}`;

/** @param {string} id @returns {Promise<JobLinks>} */
export const links = (id) => json(`jobs/${id}/links`, { method: "POST" });

/**
 * A URL of the service as this page reaches it, which may differ from the address that the service gives.
 * URLs of other hosts (of a bucket) stay as they are.
 * @param {string} url
 */
export function reachable(url) {
  const { pathname, search } = new URL(url, BASE);
  const path = /\/((?:images|jobs)\/[^?]*)$/.exec(pathname);
  return path ? new URL(`${path[1]}${search}`, BASE).href : url;
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} rejects if it is aborted */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

function randomName() {
  // crypto.randomUUID is missing on pages that are not served over TLS.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
