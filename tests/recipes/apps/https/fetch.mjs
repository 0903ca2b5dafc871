// Streams, uploads and downloads by Node's own fetch.
import { createHash } from "node:crypto";
import { openAsBlob } from "node:fs";

const { API, NAME, BODY } = process.env;
const events = [];
const stream = await fetch(`${API}/v1/stream/${NAME}`);
for await (const part of stream.body.pipeThrough(new TextDecoderStream())) {
  for (const line of part.split("\n").filter((line) => line.startsWith("data: "))) {
    events.push(line.slice("data: ".length));
    await (await fetch(`${API}/v1/seen/${NAME}`, { method: "POST" })).text();
  }
}
const sent = await fetch(`${API}/v1/digest`, { method: "POST", body: await openAsBlob(BODY) });
const { digest: up } = await sent.json();
const digest = createHash("sha256");
for await (const chunk of (await fetch(`${API}/v1/bytes/${NAME}`)).body) digest.update(chunk);
console.log(JSON.stringify({ events, up, down: digest.digest("hex"), version: "1.1" }));
