// A run as a BullMQ job: calls of the model until it asks for no more tools.
const { Worker } = require("bullmq");
const OpenAI = require("openai");

const { hostname: host, port } = new URL(process.env.REDIS_URL);
const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: "sk-bench" });

// One streamed answer: its text, and the calls of tools that it asks for.
async function ask(messages) {
  let text = "";
  const calls = [];
  for await (const chunk of await client.chat.completions.create({ model: "bench", messages, stream: true })) {
    for (const { delta } of chunk.choices) {
      text += delta.content || "";
      for (const part of delta.tool_calls || []) {
        calls[part.index] ??= { id: part.id, type: "function", function: { name: part.function.name, arguments: "" } };
        calls[part.index].function.arguments += part.function.arguments || "";
      }
    }
  }
  return { text, calls };
}

async function run(job) {
  const messages = [{ role: "user", content: job.data.message }];
  for (;;) {
    const { text, calls } = await ask(messages);
    if (calls.length === 0) return text;
    messages.push({ role: "assistant", content: text, tool_calls: calls });
    messages.push(...calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "42" })));
  }
}

const worker = new Worker("runs", run, { connection: { host, port: Number(port) }, concurrency: 500 });
worker.on("error", (error) => console.error(error));
