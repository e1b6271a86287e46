// The AI SDK with its default model for OpenAI, which calls the Responses API.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import { KEY, PROMPT, URL_, check, makesOneJob, thrownBy } from "./checks.mjs";

const providerOf = (apiKey = KEY) => createOpenAI({ baseURL: `${URL_}/v1`, apiKey });

const settingsOf = (apiKey, fields = {}) => ({
  model: providerOf(apiKey)("gpt-image-1"),
  prompt: PROMPT,
  tools: { image_generation: providerOf(apiKey).tools.imageGeneration({ quality: "low", ...fields }) },
});

await check("generate", () =>
  makesOneJob(async () => {
    const { text, staticToolResults } = await generateText(settingsOf(KEY));
    assert.match(text, /\]\(http/);
    assert(Buffer.from(staticToolResults[0].output.result, "base64").length > 1000);
  }),
);

await check("stream", () =>
  makesOneJob(async () => {
    const { textStream } = streamText(settingsOf(KEY));
    let text = "";
    for await (const part of textStream) text += part;
    assert.match(text, /\]\(http/);
  }),
);

await check("understand an error", async () => {
  const error = await thrownBy(() => generateText(settingsOf(KEY, { size: "1x1" })));
  assert.match(error.message, /size/);
});

await check("wrong key", async () => {
  const error = await thrownBy(() => generateText(settingsOf("wrong")));
  assert.equal(error.statusCode, 401);
});
