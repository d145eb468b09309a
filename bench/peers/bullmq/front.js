// What stands in front of BullMQ: accepts a run, answers with its id, and streams the run's events.
const http = require("http");
const { Queue, QueueEvents } = require("bullmq");

const { hostname: host, port } = new URL(process.env.REDIS_URL);
const connection = { host, port: Number(port) };
const queue = new Queue("runs", { connection });
const events = new QueueEvents("runs", { connection });
// What was told of runs that nobody follows yet; the last 1,000 are enough for a reader that comes at once.
const told = new Map();
const readers = new Map();

for (const kind of ["waiting", "active", "completed", "failed"]) {
  events.on(kind, ({ jobId }) => {
    told.set(jobId, [...(told.get(jobId) || []), kind]);
    if (told.size > 1000) told.delete(told.keys().next().value);
    tell(jobId, kind);
  });
}

function tell(id, kind) {
  const reader = readers.get(id);
  if (!reader) return;
  reader.write(`event: ${kind}\ndata: {}\n\n`);
  if (kind === "completed" || kind === "failed") reader.end();
}

async function start(request, response) {
  let body = "";
  for await (const part of request) body += part;
  const { id, message } = JSON.parse(body);
  await queue.add("run", { message }, { jobId: id });
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ id }));
}

function follow(id, request, response) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  readers.set(id, response);
  request.on("close", () => readers.delete(id));
  for (const kind of told.get(id) || []) tell(id, kind);
}

const server = http.createServer((request, response) => {
  const [, path, id] = request.url.split("/");
  if (path === "health") return response.end("ok");
  if (id) return follow(id, request, response);
  start(request, response).catch((error) => response.writeHead(500).end(String(error)));
});
events.waitUntilReady().then(() => server.listen(Number(process.env.PORT), "127.0.0.1"));
