// Sends what fetch and node:http call to the proxy that HTTP_PROXY names. Node can do so by itself
// (NODE_USE_ENV_PROXY), but its fetch asks for a tunnel, and Envoy has to see the request.
const http = require("node:http");
const { EnvHttpProxyAgent, setGlobalDispatcher } = require("undici");

http.globalAgent = new http.Agent({ keepAlive: true, proxyEnv: process.env });
setGlobalDispatcher(new EnvHttpProxyAgent({ proxyTunnel: false }));
