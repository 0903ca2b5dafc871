"""`wire`: a question as Envoy sends it, in bytes."""

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest


def wire(
    direction: str, route: str | None, token: str | None, *, edge: str = "", **headers: str
) -> bytes:
    """Return a question; keywords are further headers."""
    request = WireRequest()
    http = request.attributes.request.http
    http.method, http.host, http.path = "GET", "api.example", "/"
    if token is not None:
        http.headers["authorization"] = f"Bearer {token}"
    for name, value in headers.items():
        http.headers[name.replace("_", "-")] = value
    for name, value in (("direction", direction), ("route", route or ""), ("edge", edge)):
        if value:
            request.attributes.context_extensions[f"authz.{name}"] = value
    return request.SerializeToString()
