// Every kind of call, by grpc-js. The proxy is the environment's.
import { createRequire } from "node:module";
import grpc from "@grpc/grpc-js";

const { TARGET, TOKEN } = process.env;
const same = (bytes) => bytes;
const service = "/test.Echo/";
const client = new grpc.Client(TARGET, grpc.credentials.createInsecure());
const options = { deadline: Date.now() + 60000 };
const token = new grpc.Metadata();
token.set("authorization", `Bearer ${TOKEN}`);
const unary = (metadata) =>
  new Promise((resolve) =>
    client.makeUnaryRequest(`${service}Unary`, same, same, Buffer.from("hello"), metadata, options, (error, answer) =>
      resolve(error ? grpc.status[error.code] : answer.toString()),
    ),
  );
const parts = async (stream) => {
  const found = [];
  for await (const part of stream) found.push(part.toString());
  return found;
};

const { version } = createRequire(import.meta.url)("@grpc/grpc-js/package.json");
const found = { version, denied: await unary(new grpc.Metadata()), unary: await unary(token) };
found.collect = await new Promise((resolve, reject) => {
  const call = client.makeClientStreamRequest(`${service}Collect`, same, same, token, options, (error, answer) =>
    error ? reject(error) : resolve(answer.toString()),
  );
  call.write(Buffer.from("a"));
  call.write(Buffer.from("b"));
  call.end();
});
found.tell = await parts(client.makeServerStreamRequest(`${service}Tell`, same, same, Buffer.from("x"), token, options));
const talk = client.makeBidiStreamRequest(`${service}Talk`, same, same, token, options);
found.talk = [];
talk.write(Buffer.from("a"));
for await (const part of talk) {
  found.talk.push(part.toString());
  if (found.talk.length === 1) talk.write(Buffer.from("b"));
  else talk.end();
}
client.close();
console.log(JSON.stringify(found));
