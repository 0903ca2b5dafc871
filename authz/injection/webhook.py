"""`InjectionWebhook`: a mutating admission webhook (admission.k8s.io/v1) that injects pods.

It sees pods and nothing else, changes none that does not ask, and refuses those that cannot be injected. Of
pods that are there already it changes nothing: it refuses what would undo their injection.
"""

import base64
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from authz.doors.http_server import HttpServer, ServerTls
from authz.injection.parts import Additions
from authz.injection.pod import (
    LABEL,
    WANTED,
    InjectionError,
    check_debugging,
    inject,
    is_wanted,
)

PATH: Final = "/inject"
MOST_BYTES: Final = 3 * 1024**2
"""Of a review. The API server takes objects of half of that, and a review may hold two."""
MOST_HELD: Final = 4 * MOST_BYTES
"""Bytes of all reviews at a time. Its pod may have 128 MiB."""
MOST_CONNECTIONS: Final = 50
"""Each takes up to 300 KiB beside its review, for TLS. Few API servers ask, and briefly."""
_API_VERSION: Final = "admission.k8s.io/v1"
_UNPROCESSABLE: Final = 422
_BAD_REQUEST: Final = 400
_TOO_LARGE: Final = 413


class InjectionWebhook(HttpServer):
    """Serves `/inject` and `/healthz` over TLS until it is stopped.

    Args:
        address: `host:port`.
        tls: Certificate and key, read again when they change.
        additions: What every pod gets.
    """

    def __init__(self, address: str, tls: ServerTls, additions: Additions) -> None:
        self._additions = additions
        routes = [
            Route(PATH, self._review, methods=["POST"]),
            Route("/healthz", self._health),
        ]
        super().__init__(
            address,
            Starlette(routes=routes),
            most_connections=MOST_CONNECTIONS,
            most_body=MOST_BYTES,
            most_held=MOST_HELD,
            tls=tls,
        )

    async def _health(self, _: Request) -> Response:
        return PlainTextResponse("ok")

    async def _review(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return PlainTextResponse("the review is too large", _TOO_LARGE)
        try:
            review = orjson.loads(bytes(body))
            answered = answer_to(review, self._additions)
        except (ValueError, KeyError, TypeError, AttributeError):
            return PlainTextResponse(f"expected an AdmissionReview of {_API_VERSION}", _BAD_REQUEST)
        return Response(orjson.dumps(answered), media_type="application/json")


def answer_to(review: dict[str, Any], additions: Additions) -> dict[str, Any]:
    """Return the AdmissionReview that answers one.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: It is no review of a pod.
    """
    if review["apiVersion"] != _API_VERSION or review["kind"] != "AdmissionReview":
        raise ValueError("another kind of review")
    request = review["request"]
    answer: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    try:
        patch = _judge(request, additions)
    except InjectionError as error:
        answer["allowed"] = False
        answer["status"] = {"code": _UNPROCESSABLE, "message": f"authz: {error}"}
    else:
        if patch:
            answer["patchType"] = "JSONPatch"
            answer["patch"] = base64.b64encode(orjson.dumps(patch)).decode()
    return {"apiVersion": _API_VERSION, "kind": "AdmissionReview", "response": answer}


def _judge(request: dict[str, Any], additions: Additions) -> list[dict[str, Any]]:
    pod, before = request.get("object"), request.get("oldObject")
    if request["kind"]["kind"] != "Pod" or pod is None:
        return []
    if request["operation"] == "CREATE":
        if not is_wanted(pod["metadata"]):
            return []
        metadata, spec = inject(pod["metadata"], pod["spec"], additions)
        return [
            {"op": "replace", "path": "/metadata", "value": metadata},
            {"op": "replace", "path": "/spec", "value": spec},
        ]
    if before is not None and is_wanted(before["metadata"]):
        if not is_wanted(pod["metadata"]):
            raise InjectionError(
                [f"metadata.labels[{LABEL}]: expected {WANTED}, as long as the pod is there"]
            )
        check_debugging(pod["spec"])
    return []
