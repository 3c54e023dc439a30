// Anthropic's SDK for TypeScript, streamed: who pays is said once on the client, what for on each call.
// GATEWAY_URL is the gateway, ANTHROPIC_API_KEY the key as ever.

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({
  baseURL: process.env.GATEWAY_URL ?? "http://127.0.0.1:10000",
  defaultHeaders: { "X-Cost-Department": "product", "X-Cost-Feature": "code-review" },
});

const stream = client.messages
  .stream(
    { model: "claude-sonnet-4-6", max_tokens: 1024, messages: [{ role: "user", content: "Review this diff: ..." }] },
    { headers: { "X-Cost-User": "u-0815", "X-Cost-Project": "apollo" } },
  )
  .on("text", (text) => process.stdout.write(text));
await stream.finalMessage();
