"""The floor: an ext_authz server that does nothing, at the address that is its argument."""

import asyncio
import sys

import grpc
import uvloop

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.doors.envoy.ext_authz import SERVICE

ANSWER = CheckResponse()


async def check(_: CheckRequest, __: object) -> CheckResponse:
    """Answer without a look."""
    return ANSWER


async def serve(address: str) -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=CheckRequest.FromString,
        response_serializer=CheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),)
    )
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(asyncio.wait_for(serve(sys.argv[1]), timeout=600))
