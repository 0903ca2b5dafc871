// Everything that a client does, by the fetch that Node brings. The proxy is set outside of this program.
import { createReadStream, openAsBlob } from "node:fs";
import { Readable } from "node:stream";

const { BASE, TOKEN, NAME, BODY } = process.env;
const headers = { authorization: `Bearer ${TOKEN}` };
const call = (path, options = {}) =>
  fetch(`${BASE}${path}`, { ...options, headers: { ...headers, ...options.headers } });
const status = async (path, options) => {
  const answer = await call(path, options);
  await answer.text();
  return answer.status;
};
const text = async (path, options) => (await call(path, options)).text();

const denied = await fetch(`${BASE}/echo`);
await denied.text();
const found = { version: `Node ${process.versions.node}`, denied: denied.status, kept: [] };
for (let turn = 0; turn < 3; turn++) found.kept.push(await status("/echo"));
found.head = await status("/echo", { method: "HEAD" });
found.options = await status("/echo", { method: "OPTIONS" });
found.underscore = await status("/underscore", { headers: { client_id: "x" } });
found.upload = await text("/digest", { method: "POST", body: await openAsBlob(BODY) });
const body = Readable.toWeb(createReadStream(BODY));
found.chunked = await text("/digest", { method: "POST", body, duplex: "half" });
found.events = [];
const stream = await call(`/events/${NAME}`);
for await (const part of stream.body.pipeThrough(new TextDecoderStream())) {
  for (const line of part.split("\n").filter((line) => line.startsWith("data: "))) {
    found.events.push(line.slice("data: ".length));
    await status(`/seen/${NAME}`, { method: "POST" });
  }
}
found.gzip = (await text("/gzip")).slice(0, 8);
console.log(JSON.stringify(found));
