// openapi-fetch with the types of openapi-typescript.
import createClient from "openapi-fetch";
import { check, isImage, makesOneJob, KEY, PROMPT, URL_ } from "./checks.mjs";
import type { components, paths } from "./schema.js";

type Job = components["schemas"]["JobView"];

const clientOf = (key: string) =>
  createClient<paths>({ baseUrl: URL_, headers: { authorization: `Bearer ${key}` } });
const client = clientOf(KEY);

function expect(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(text);
}

async function finished(id: string): Promise<Job> {
  for (;;) {
    const { data, error } = await client.GET("/jobs/{job_id}", { params: { path: { job_id: id } } });
    if (error) throw new Error(error.detail);
    if (data.finished_at !== null) return data;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const job = await check("generate", () =>
  makesOneJob(async () => {
    const { data, response } = await client.POST("/generate", { body: { prompt: PROMPT, steps: 4 } });
    expect(response.status === 202 && data !== undefined, "not accepted");
    expect(data.status !== "planned", "a job has another status");
    const done = await finished(data.id);
    // Fields that are always sent need no check for undefined.
    const seconds: number | null = done.timings.denoise;
    const first: string | undefined = done.images[0]?.sha256;
    const warnings: string[] = done.warnings.map((warning) => warning.code);
    expect(done.status === "succeeded" && seconds !== null && first !== undefined, done.status);
    expect(done.attempts === 1 && warnings.length >= 0, "attempts");
    return done;
  }),
);

await check("read an image", async () => {
  const name = job?.images[0]?.url.split("/").at(-1) ?? "";
  const { data } = await client.GET("/images/{name}", {
    params: { path: { name } },
    parseAs: "arrayBuffer",
  });
  expect(data !== undefined && isImage(new Uint8Array(data)), "no image");
});

await check("tell a plan from a job", async () => {
  const { data } = await client.POST("/generate", {
    params: { query: { dry_run: true } },
    body: { tags: { general: ["smile"] } },
  });
  expect(data?.status === "planned", "no plan");
  const seed: number | null = data.request.seed;
  const tokens: number = data.tokens.prompt?.t5 ?? 0;
  expect(seed === null && tokens > 1 && data.cost > 0, "the plan is incomplete");
});

await check("edit", async () => {
  const init_image = job?.images[0]?.url ?? "";
  const { data } = await client.POST("/generate", {
    body: { prompt: PROMPT, steps: 4, init_image, strength: 0.5 },
  });
  expect(data !== undefined && data.status !== "planned", "not accepted");
  expect((await finished(data.id)).status === "succeeded", "failed");
});

await check("images of the OpenAI API", async () => {
  const { data } = await client.POST("/v1/images/generations", {
    body: { prompt: PROMPT, response_format: "url" },
  });
  expect(data !== undefined && typeof data !== "string", "a stream");
  const url: string | undefined = data.data[0]?.url;
  expect(url !== undefined && data.job_id !== "", "no URL");
});

await check("edit with JSON", async () => {
  const { data } = await client.POST("/v1/images/edits", {
    body: { prompt: PROMPT, images: [{ image_url: job?.images[0]?.url ?? "" }], steps: 4 },
  });
  expect(data !== undefined && typeof data !== "string", "a stream");
  expect(data.data[0]?.b64_json !== undefined, "no file");
});

await check("chat", async () => {
  const { data } = await client.POST("/v1/chat/completions", {
    body: { messages: [{ role: "user", content: PROMPT }] },
  });
  expect(data !== undefined && typeof data !== "string", "a stream");
  expect(data.choices[0]?.message.content?.includes("](http") ?? false, "no URL");
});

await check("understand an error", async () => {
  const { error } = await client.POST("/generate", { body: { prompt: PROMPT, steps: 0 } });
  expect(error?.code === "validation_failed", "another problem");
  const pointers: string[] = error.errors.map((wrong) => wrong.pointer);
  expect(pointers.includes("/steps") && error.rule === undefined, "another field");
});

await check("wrong key", async () => {
  const { error, response } = await clientOf("wrong").GET("/capabilities");
  expect(response.status === 401 && error?.code === "unauthorized", "accepted");
});
