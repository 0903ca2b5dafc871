// A gRPC client on Node.js, such as an exporter of telemetry: variables alone name its proxy.
const grpc = require(process.env.GRPC_JS);

const [target, authorization, tls] = process.argv.slice(2);
const same = (bytes) => bytes;
const credentials = tls ? grpc.credentials.createSsl() : grpc.credentials.createInsecure();
const client = new grpc.Client(target, credentials);
const metadata = new grpc.Metadata();
metadata.set("authorization", authorization);
const options = { deadline: Date.now() + 20000 };
client.makeUnaryRequest(
  "/test.Echo/Echo", same, same, Buffer.alloc(0), metadata, options,
  (error, answer) => {
    if (error) {
      console.error(`${error.code} ${error.details}`);
      process.exit(1);
    }
    console.log(answer.toString());
    client.close();
  },
);
