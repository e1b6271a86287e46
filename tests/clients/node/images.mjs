// Calls the service at argv[2] with the official package and prints the results as JSON.
import { readFile } from "node:fs/promises";
import OpenAI, { toFile } from "openai";

const [, , url, picture, mask, prompt] = process.argv;
const attempts = [];
const client = new OpenAI({
  baseURL: `${url}/v1`,
  apiKey: "unused",
  fetch: (input, init) => {
    attempts.push(new Headers(init.headers).get("x-stainless-retry-count"));
    return fetch(input, init);
  },
});

const file = async (path) => toFile(await readFile(path), path, { type: "image/png" });

async function errorOf(call) {
  const before = attempts.length;
  try {
    await call();
  } catch (error) {
    const { status, code, param, type, constructor } = error;
    return { status, code, param, type, kind: constructor.name, tries: attempts.length - before };
  }
  throw new Error("the call succeeded");
}

const generated = await client.images.generate({
  model: "gpt-image-1.5",
  prompt,
  size: "1024x1024",
  output_format: "webp",
  seed: 7,
  steps: 8,
});
const linked = await client.images.generate({
  prompt,
  response_format: "url",
  n: 2,
  seed: 7,
  steps: 16,
});
const edited = await client.images.edit({
  image: await file(picture),
  mask: await file(mask),
  prompt,
  seed: 3,
  steps: 8,
  loras: [],
  sampler_options: { eta: 0.5 },
});

const streamed = [];
const stream = await client.images.generate({
  prompt,
  stream: true,
  partial_images: 2,
  seed: 7,
  steps: 16,
});
for await (const event of stream) streamed.push(event);

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const errors = {
  wrong: await errorOf(() => client.images.generate({ prompt, size: "17x17" })),
  unknown: await errorOf(() => client.images.generate({ prompt, model: "sdxl" })),
  nowhere: await errorOf(() => client.chat.completions.create({ model: "x", messages: [] })),
};

console.log(JSON.stringify({ generated, linked, edited, streamed, models, errors }));
