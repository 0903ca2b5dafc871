// Everything that a client does, by axios. The proxy is the environment's.
import { createReadStream, statSync } from "node:fs";
import axios from "axios";

const { BASE, TOKEN, NAME, BODY } = process.env;
const plain = axios.create({ baseURL: BASE, validateStatus: () => true, maxBodyLength: Infinity, maxRedirects: 0 });
const denied = (await plain.get("/echo")).status;
plain.defaults.headers.common.authorization = `Bearer ${TOKEN}`;
const found = { version: axios.VERSION, denied, kept: [] };
for (let turn = 0; turn < 3; turn++) found.kept.push((await plain.get("/echo")).status);
found.head = (await plain.head("/echo")).status;
found.options = (await plain.options("/echo")).status;
found.underscore = (await plain.get("/underscore", { headers: { client_id: "x" } })).status;
const length = { "content-length": statSync(BODY).size, "content-type": "application/octet-stream" };
found.upload = (await plain.post("/digest", createReadStream(BODY), { headers: length })).data;
const type = { "content-type": "application/octet-stream" };
found.chunked = (await plain.post("/digest", createReadStream(BODY), { headers: type })).data;
found.events = [];
const stream = await plain.get(`/events/${NAME}`, { responseType: "stream" });
for await (const part of stream.data) {
  for (const line of part.toString().split("\n").filter((line) => line.startsWith("data: "))) {
    found.events.push(line.slice("data: ".length));
    await plain.post(`/seen/${NAME}`);
  }
}
found.gzip = (await plain.get("/gzip")).data.slice(0, 8);
console.log(JSON.stringify(found));
