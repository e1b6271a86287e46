// The official Node package of OpenAI. tests/e2e/test_openai.py compares pictures and fields.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { HELD_URL, KEY, PROMPT, URL_, check, isImage, makesOneJob, thrownBy } from "./checks.mjs";

const clientOf = (url = `${URL_}/v1`, options = {}) =>
  new OpenAI({ baseURL: url, apiKey: KEY, ...options });
const client = clientOf();

async function generate(from = client, fields = {}) {
  const response = await from.images.generate({ prompt: PROMPT, steps: 4, ...fields });
  const data = Buffer.from(response.data[0].b64_json, "base64");
  assert(isImage(data));
  return data;
}

await check("list models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names, ["kirazuri-tiny"]);
});

const picture = await check("generate", () => makesOneJob(generate));

await check("stream", async () => {
  const stream = await client.images.generate({ prompt: PROMPT, stream: true, partial_images: 2 });
  const kinds = [];
  for await (const event of stream) kinds.push(event.type.split(".")[1]);
  assert.deepEqual(kinds, ["partial_image", "partial_image", "completed"]);
});

await check("edit", async () => {
  const image = await toFile(picture, "girl.png", { type: "image/png" });
  const response = await client.images.edit({ image, prompt: PROMPT, steps: 4 });
  assert(isImage(Buffer.from(response.data[0].b64_json, "base64")));
});

await check("understand an error", async () => {
  const error = await thrownBy(() => generate(client, { size: "17x17" }));
  assert(error instanceof OpenAI.BadRequestError);
  assert.equal(error.param, "size");
});

await check("wrong key", async () => {
  const error = await thrownBy(() => generate(clientOf(`${URL_}/v1`, { apiKey: "wrong" })));
  assert(error instanceof OpenAI.AuthenticationError);
});

await check("retry after 504: one job", () =>
  makesOneJob(() =>
    generate(clientOf(`${URL_}/v1`, { maxRetries: 60, defaultHeaders: { Prefer: "wait=0" } })),
  ),
);

await check("retry after a timeout: one job", () =>
  makesOneJob(() => generate(clientOf(`${HELD_URL}/v1`, { maxRetries: 60, timeout: 5000 }), { steps: 40 })),
);

await check("base URL without /v1", async () => {
  try {
    await generate(clientOf(URL_));
  } catch (error) {
    assert.match(error.message, /\/v1/);
  }
});
