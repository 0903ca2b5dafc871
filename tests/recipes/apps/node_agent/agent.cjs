// An agent on Node.js that calls its API with fetch, and with node:http.
const http = require("node:http");

const { API_URL, PORT } = process.env;

async function withFetch(item) {
  const answer = await fetch(`${API_URL}/items/${item}`);
  await answer.arrayBuffer();
  return answer.status;
}

function withHttp(item) {
  return new Promise((resolve, reject) => {
    const request = http.get(`${API_URL}/items/${item}`, (answer) => {
      answer.resume();
      answer.on("end", () => resolve(answer.statusCode));
    });
    request.on("error", reject);
  });
}

const waiting = [];
let wake = () => {};

// Runs from the start, with no request around it.
async function work() {
  for (;;) {
    while (waiting.length === 0) await new Promise((resolve) => { wake = resolve; });
    const { item, done } = waiting.shift();
    await withFetch(item).then(done, () => done(0));
  }
}
work();

const styles = {
  fetch: async (item) => [await withFetch(item)],
  all: (item) => Promise.all([withFetch(item), withFetch(item)]),
  http: async (item) => [await withHttp(item)],
  timer: (item) =>
    new Promise((resolve) => setTimeout(() => resolve(withFetch(item)), 1)).then((one) => [one]),
  queue: async (item) => [
    await new Promise((done) => {
      waiting.push({ item, done });
      wake();
    }),
  ],
};

http
  .createServer(async (request, response) => {
    const [, style, item] = request.url.split("/");
    response.setHeader("content-type", "application/json");
    if (style === "healthz") {
      response.end('"ok"');
      return;
    }
    try {
      response.end(JSON.stringify(await styles[style](item)));
    } catch (error) {
      response.statusCode = 502;
      response.end(JSON.stringify(String(error)));
    }
  })
  .listen(Number(PORT), "127.0.0.1");

// With a listener of the instrumentation's own, Node does not end by itself any more.
process.on("SIGTERM", () => process.exit(0));
