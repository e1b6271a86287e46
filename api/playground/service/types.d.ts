// Names for the types that are generated from the OpenAPI document. Type checks read this file; browsers do not.
import type { components } from "schema";

type Schemas = components["schemas"];

export type Capabilities = Schemas["Capabilities"];
export type CompletedTag = Schemas["CompletedTag"];
export type FieldError = Schemas["FieldError"];
export type GenerationRequest = Schemas["GenerationRequest"];
export type Job = Schemas["JobView"];
export type JobList = Schemas["JobList"];
export type JobLinks = Schemas["JobLinks"];
export type Plan = Schemas["Plan"];
export type ProblemBody = Schemas["Problem"];
export type ResolvedRequest = Schemas["ResolvedRequest"];
export type RecipeClaim = Schemas["RecipeClaim"];
export type Verification = Schemas["Verification"];
export type StoredImage = Schemas["StoredImage"];
export type TagGroup = CompletedTag["category"];

/** A server-sent event; `data` is parsed. */
export interface JobEvent {
  id: string;
  name: string;
  data: Record<string, any>;
}

type Fields = Omit<GenerationRequest, "tags" | "webhook" | "prompt" | "loras" | "num_images" | "sampler" | "scheduler">;
type Optional = { [K in keyof Fields]?: Fields[K] | null };

/** What the form holds: the fields of a request. Null takes the default of the card. */
export interface Form extends Optional {
  prompt: string;
  loras: { name: string; weight: number }[];
  num_images: number;
  sampler?: string | null;
  scheduler?: string | null;
}

/** How the form is shown and what it does after a submission. */
export interface View {
  isText: boolean;
  isSeedLocked: boolean;
  /** Groups that the user chose for tags by dragging. */
  groups: Record<string, TagGroup>;
}

/** A message beside a field. */
export interface Note {
  field: string;
  text: string;
  isError: boolean;
  code: string;
}

/** A job as the page shows it: the last known state, and what its events have told since. */
export interface Run {
  job: Job;
  eta: number | null;
  previews: string[];
  images: StoredImage[];
  note: string;
}

export interface State {
  capabilities: Capabilities | null;
  form: Form;
  view: View;
  plan: Plan | null;
  /** Warnings of the dry run, and errors of the last request. */
  notes: Note[];
  /** Jobs in progress and those that ended while the page was open, the oldest first. */
  runs: Map<string, Run>;
  /** Id of the job that is shown. */
  shown: string | null;
  /** The picture that is open, large. */
  viewing: { job: Job; index: number } | null;
  /** The picture that another one will be compared with. */
  comparing: { job: Job; index: number } | null;
  /** The newest job that ended while the page was open. */
  finished: Job | null;
  /** Why an API key is needed; "" if none is. */
  keyReason: string;
  isOffline: boolean;
}

declare global {
  interface HTMLElementEventMap {
    /** A slider was moved. */
    "kz-value": CustomEvent<number | null>;
  }
}
