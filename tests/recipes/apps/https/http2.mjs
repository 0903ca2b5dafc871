// Streams, uploads and downloads by Node's own HTTP/2.
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { connect } from "node:http2";

const { API, NAME, BODY } = process.env;
const session = connect(API);

function call(method, path, body) {
  const request = session.request({ ":method": method, ":path": path });
  body ? body.pipe(request) : request.end();
  return request;
}

async function text(request) {
  let found = "";
  for await (const part of request.setEncoding("utf8")) found += part;
  return found;
}

const events = [];
for await (const part of call("GET", `/v1/stream/${NAME}`).setEncoding("utf8")) {
  for (const line of part.split("\n").filter((line) => line.startsWith("data: "))) {
    events.push(line.slice("data: ".length));
    await text(call("POST", `/v1/seen/${NAME}`));
  }
}
const { digest: up } = JSON.parse(await text(call("POST", "/v1/digest", createReadStream(BODY))));
const digest = createHash("sha256");
for await (const chunk of call("GET", `/v1/bytes/${NAME}`)) digest.update(chunk);
session.close();
console.log(JSON.stringify({ events, up, down: digest.digest("hex"), version: "2" }));
