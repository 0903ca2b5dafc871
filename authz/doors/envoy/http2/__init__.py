"""The Check door: HTTP/2 on a Unix socket for the one unary gRPC method of ext_authz, and for nothing else.

Its peer is Envoy, in the same pod. Secrets, health, TCP and TLS are grpcio's (`grpc_server`). Read it in
this order: `frames` (bytes), `calls` (what a block of headers asks for), `sending` (answers, as windows
let them go), `session` (streams and what is wrong with them), `connection` (a session over a transport),
`server` (where it listens, how it drains).
"""
