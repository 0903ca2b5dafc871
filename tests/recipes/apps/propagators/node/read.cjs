// What OpenTelemetry for Node.js makes of headers: one JSON document of lines in, one of findings out. For each
// propagator: the members that it finds, and the headers that it would send on.
const { createRequire } = require("node:module");
const path = require("node:path");
const { ROOT_CONTEXT, defaultTextMapGetter, defaultTextMapSetter, propagation } = require("@opentelemetry/api");
const { CompositePropagator, W3CBaggagePropagator } = require("@opentelemetry/core");
const { JaegerPropagator } = require("@opentelemetry/propagator-jaeger");
const { OTTracePropagator } = require("@opentelemetry/propagator-ot-trace");

// The agent of the recipe has a later one.
const agent = createRequire(path.join(__dirname, "../../node_agent/agent.cjs"));
const { W3CBaggagePropagator: LaterBaggagePropagator } = agent("@opentelemetry/core");

const [w3c, later, jaeger, ottrace] = [
  new W3CBaggagePropagator(), new LaterBaggagePropagator(), new JaegerPropagator(), new OTTracePropagator(),
];
const propagators = {
  w3c,
  "later w3c": later,
  jaeger,
  ottrace,
  "w3c,jaeger,ottrace": new CompositePropagator({ propagators: [w3c, jaeger, ottrace] }),
  "ottrace,jaeger,w3c": new CompositePropagator({ propagators: [ottrace, jaeger, w3c] }),
};

// As node:http hands them to an application.
function joined(lines) {
  const headers = {};
  for (const [name, value] of lines) {
    const key = name.toLowerCase();
    headers[key] = key in headers ? `${headers[key]}, ${value}` : value;
  }
  return headers;
}

function read(lines) {
  const found = {};
  for (const [name, propagator] of Object.entries(propagators)) {
    const context = propagator.extract(ROOT_CONTEXT, joined(lines), defaultTextMapGetter);
    const sent = {};
    propagator.inject(context, sent, defaultTextMapSetter);
    const members = (propagation.getBaggage(context)?.getAllEntries() ?? []).map(([key, { value }]) => [key, value]);
    found[`node ${name}`] = { members, sent: Object.entries(sent) };
  }
  return found;
}

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => {
  process.stdout.write(JSON.stringify(JSON.parse(Buffer.concat(chunks).toString("utf8")).map(read)));
});
