// The client that hey-api generates.
import { check, isImage, makesOneJob, KEY, PROMPT, URL_ } from "./checks.mjs";
import { client } from "./hey/client.gen.js";
import { generate, getCapabilities, getImage, getJob, openaiGenerateImages } from "./hey/sdk.gen.js";
import { openaiChat, openaiEditImage, streamJobEvents, verifyImage } from "./hey/sdk.gen.js";
import type { JobView } from "./hey/types.gen.js";

client.setConfig({ baseUrl: URL_, auth: KEY });

function expect(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(text);
}

async function finished(id: string): Promise<JobView> {
  for (;;) {
    const { data, error } = await getJob({ path: { job_id: id } });
    if (data === undefined) throw new Error(error.detail);
    if (data.finished_at !== null) return data;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const job = await check("generate", () =>
  makesOneJob(async () => {
    const { data } = await generate({ body: { prompt: PROMPT, steps: 4 } });
    expect(data !== undefined && data.status !== "planned", "not accepted");
    const done = await finished(data.id);
    const seconds: number | null = done.timings.denoise;
    const warnings: string[] = done.warnings.map((warning) => warning.code);
    expect(done.status === "succeeded" && seconds !== null && warnings.length >= 0, done.status);
    return done;
  }),
);

await check("read an image", async () => {
  const name = job?.images[0]?.url.split("/").at(-1) ?? "";
  const { data } = await getImage({ path: { name } });
  expect(data instanceof Blob, "no file");
  expect(isImage(new Uint8Array(await data.arrayBuffer())), "no image");
  const verified = await verifyImage({ body: { image: data } });
  expect(verified.data?.verdict === "ours", "not ours");
});

await check("events", async () => {
  const { stream } = await streamJobEvents({ path: { job_id: job?.id ?? "" } });
  let count = 0;
  for await (const data of stream) count += data === undefined ? 0 : 1;
  expect(count >= 3, `${count} events`);
});

await check("tell a plan from a job", async () => {
  const { data } = await generate({ body: { tags: { general: ["smile"] } }, query: { dry_run: true } });
  expect(data?.status === "planned", "no plan");
  const seed: number | null = data.request.seed;
  expect(seed === null && data.cost > 0, "the plan is incomplete");
});

await check("images of the OpenAI API", async () => {
  const { data } = await openaiGenerateImages({ body: { prompt: PROMPT, response_format: "url" } });
  const url: string | undefined = data?.data[0]?.url;
  expect(url !== undefined, "no URL");
});

await check("edit with JSON", async () => {
  const image_url = job?.images[0]?.url ?? "";
  const { data } = await openaiEditImage({ body: { prompt: PROMPT, images: [{ image_url }] } });
  const file: string | undefined = data?.data[0]?.b64_json;
  expect(file !== undefined, "no file");
});

await check("chat", async () => {
  const { data } = await openaiChat({ body: { messages: [{ role: "user", content: PROMPT }] } });
  expect(data?.choices[0]?.message.content?.includes("](http") ?? false, "no URL");
});

await check("understand an error", async () => {
  const { error } = await generate({ body: { prompt: PROMPT, steps: 0 } });
  expect(error !== undefined && "errors" in error, "another problem");
  const pointers: string[] = error.errors.map((wrong) => wrong.pointer);
  expect(error.code === "validation_failed" && pointers.includes("/steps"), "another field");
});

await check("wrong key", async () => {
  const { error, response } = await getCapabilities({ auth: "wrong" });
  expect(response?.status === 401 && error !== undefined, "accepted");
});
