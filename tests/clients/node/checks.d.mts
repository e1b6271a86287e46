export const URL_: string;
export const HELD_URL: string;
export const KEY: string;
export const PROMPT: string;
export function check<T>(name: string, run: () => Promise<T> | T): Promise<T | undefined>;
export function ownJobs(): Promise<Set<string>>;
export function makesOneJob<T>(run: () => Promise<T>): Promise<T>;
export function isImage(data: Uint8Array): boolean;
export function thrownBy(run: () => Promise<unknown>): Promise<unknown>;
