// An agent as a web application: it looks up orders for the user who asks. Node.js alone, no packages.
import http from "node:http";

const { PORT, ORDERS_URL, HTTP_PROXY } = process.env;

// A plain HTTP request to the proxy names the whole URL; Envoy adds TLS and the token.
// From Node.js 24 on, NODE_USE_ENV_PROXY=1 lets fetch() do this.
function get(url, headers) {
  const { hostname, port } = new URL(HTTP_PROXY);
  return new Promise((resolve, reject) => {
    http
      .get({ hostname, port, path: url, headers: { host: new URL(url).host, ...headers } }, resolve)
      .on("error", reject);
  });
}

const server = http.createServer(async (request, response) => {
  if (request.url === "/healthz") return response.end("ok");
  if (request.url !== "/my-orders") return response.writeHead(404).end();
  const { authorization } = request.headers;
  console.log(`received ${authorization.slice(0, 26)}…`);
  try {
    const answer = await get(`${ORDERS_URL}/orders`, { authorization });
    response.writeHead(answer.statusCode, { "content-type": answer.headers["content-type"] });
    answer.pipe(response);
  } catch (error) {
    response.writeHead(502).end(error.message);
  }
});

server.listen(Number(PORT), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
