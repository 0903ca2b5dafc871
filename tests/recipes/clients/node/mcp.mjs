// An MCP client that knows a server's URL and its own client id. Each word of its command line is a tool to call;
// `tools` lists them. MODE is how
// it finds out the server's version, if not as the SDK does by itself.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from "@modelcontextprotocol/client";

const { MCP_URL, CLIENT_ID, USER_NAME, MODE } = process.env;
const kept = {};
const asked = [];
const scopes = [];

async function noted(url, init) {
  const answer = await fetch(url, init);
  asked.push([`${init?.method ?? "GET"} ${new URL(url).pathname}`, answer.status]);
  return answer;
}

// What the SDK has its host keep, and the user's browser.
const host = {
  redirectUrl: "http://localhost:4711",
  clientMetadata: { client_name: "test", redirect_uris: ["http://localhost:4711"] },
  clientInformation: () => ({ client_id: CLIENT_ID }),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  discoveryState: () => kept.discovery,
  saveDiscoveryState: (state) => void (kept.discovery = state),
  redirectToAuthorization: async (url) => {
    scopes.push(url.searchParams.get("scope").split(" "));
    url.searchParams.set("login_hint", USER_NAME);
    const answer = await fetch(url, { redirect: "manual" });
    kept.back = new URL(answer.headers.get("location")).searchParams;
  },
};

const transport = () => new StreamableHTTPClientTransport(new URL(MCP_URL), { authProvider: host, fetch: noted });

// Does what the SDK leaves to its host: it takes the code, and tries again.
async function signedIn(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    await used.finishAuth(kept.back);
    return await act();
  }
}

const said = (error) => `${error.constructor.name} ${error.status}: ${error.message}`;
const client = new Client({ name: "test", version: "1" }, MODE ? { versionNegotiation: { mode: MODE } } : {});
let used;
try {
  await signedIn(async () => {
    used = transport();
    await client.connect(used);
  });
} catch (error) {
  console.log(JSON.stringify({ failed: said(error), asked, scopes }));
  process.exit();
}
const done = [];
for (const step of process.argv.slice(2)) {
  const before = asked.length;
  let outcome;
  try {
    outcome = await signedIn(async () =>
      step === "tools"
        ? (await client.listTools()).tools.map((tool) => tool.name)
        : (await client.callTool({ name: step, arguments: { text: "x" } })).content[0].text,
    );
  } catch (error) {
    outcome = said(error);
  }
  done.push({ outcome, asked: asked.slice(before) });
}
const version = client.getNegotiatedProtocolVersion();
await used.terminateSession();
await client.close();
console.log(JSON.stringify({ version, done, asked, scopes }));
