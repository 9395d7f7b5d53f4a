// Streamed chat with the OpenAI client for Node.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:10100/v1",
  apiKey: "unused",
});

const stream = await client.chat.completions.create({
  model: "gpt-4o-mini", // an alias of the default chat model
  messages: [{ role: "user", content: "What is the capital of Japan?" }],
  temperature: 0,
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
process.stdout.write("\n");
