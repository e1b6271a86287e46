// Images with the AI SDK. argv[2] is the provider: OpenAI's own, or the one for compatible services.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateImage, generateText, streamText } from "ai";
import { KEY, PROMPT, URL_, check, isImage, makesOneJob, thrownBy } from "./checks.mjs";

const providerOf = {
  openai: createOpenAI,
  compatible: (settings) => createOpenAICompatible({ name: "kirazuri", ...settings }),
}[process.argv[2]];
const modelOf = (settings) => providerOf(settings).imageModel("gpt-image-1");
const chatOf = (settings) => providerOf(settings).chat?.("gpt-image-1") ?? providerOf(settings)("gpt-image-1");
const v1 = { baseURL: `${URL_}/v1`, apiKey: KEY };

async function generate(settings, fields = {}) {
  const { image } = await generateImage({ model: modelOf(settings), prompt: PROMPT, ...fields });
  assert(isImage(image.uint8Array));
  return image.uint8Array;
}

const picture = await check("generate", () =>
  makesOneJob(() => generate(v1, { size: "1024x1024" })),
);

await check("several images", async () => {
  const { images } = await generateImage({ model: modelOf(v1), prompt: PROMPT, n: 2 });
  assert.equal(images.length, 2);
});

await check("edit", () => generate(v1, { prompt: { text: PROMPT, images: [picture] } }));

await check("understand an error", async () => {
  const error = await thrownBy(() => generate(v1, { size: "17x17" }));
  assert(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 400);
  assert.match(error.message, /size/);
});

await check("wrong key", async () => {
  const error = await thrownBy(() => generate({ ...v1, apiKey: "wrong" }));
  assert.equal(error.statusCode, 401);
});

await check("retry after 504: one job", () =>
  makesOneJob(() => generate({ ...v1, headers: { Prefer: "wait=0" } }, { maxRetries: 5 })),
);

await check("base URL without /v1", async () => {
  try {
    await generate({ ...v1, baseURL: URL_ });
  } catch (error) {
    assert.match(error.message, /\/v1/);
  }
});

await check("chat", () =>
  makesOneJob(async () => {
    const { text } = await generateText({ model: chatOf(v1), prompt: PROMPT, system: "Be kind." });
    assert.match(text, /\]\(http/);
  }),
);

await check("streamed chat", () =>
  makesOneJob(async () => {
    const { textStream } = streamText({ model: chatOf(v1), prompt: PROMPT });
    let text = "";
    for await (const part of textStream) text += part;
    assert.match(text, /\]\(http/);
  }),
);
