// OpenAI's SDK for TypeScript: who pays is said once on the client, what for on each call.
// GATEWAY_URL is the gateway, OPENAI_API_KEY the key as ever.

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.GATEWAY_URL ?? "http://127.0.0.1:10000"}/v1`,
  defaultHeaders: { "X-Cost-Department": "support", "X-Cost-Feature": "ticket-summary" },
});

const { data, response } = await client.chat.completions
  .create(
    { model: "gpt-4o", messages: [{ role: "user", content: "Summarise ticket 4711 in one sentence." }] },
    { headers: { "X-Cost-User": "u-2077", "X-Cost-Tag-Customer": "acme" } },
  )
  .withResponse();
console.log(data.choices[0].message.content);
// Keep the id beside your own data: it finds the call's record.
console.log("record:", response.headers.get("x-tollgate-id"));
