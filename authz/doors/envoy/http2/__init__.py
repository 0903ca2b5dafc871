"""The Check door: HTTP/2 on a Unix socket for the one unary gRPC method of ext_authz, and for nothing else.

Its peer is Envoy, in the same pod. Secrets, health, TCP and TLS are grpcio's (`grpc_server`). Read it in
this order: `frames` (bytes), `calls` (what a block of headers asks for), `connection` (streams and
windows), `server` (where it listens, how it drains).
"""
