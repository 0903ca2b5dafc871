"""The API that the agent calls: an ordinary resource server that verifies what it receives.

It trusts the issuer's published keys and nothing else, and remembers who called: claims, never tokens.
Models reach it as an MCP server. Nothing in here belongs to this project.
"""

import os
import ssl
from typing import Any, Final

import jwt
from fastapi import FastAPI, HTTPException, Request

ISSUER = os.environ["ORDERS_ISSUER"]
AUDIENCE = os.environ["ORDERS_AUDIENCE"]
SCOPE = "Orders.Read"
ROLE = "Orders.Read.All"
AGENT_FACET = "11"
TOOLS: Final = {"list_orders": SCOPE, "cancel_order": "Orders.Write", "delete_customer": SCOPE}
"""Scope that each tool needs."""
SHOWN = ("aud", "azp", "oid", "idtyp", "scp", "roles", "xms_act_fct", "xms_par_app_azp", "uti")

keys = jwt.PyJWKClient(
    os.environ["ORDERS_KEYS_URL"],
    ssl_context=ssl.create_default_context(cafile=os.environ["ORDERS_KEYS_CA_FILE"]),
    # A key that is new is looked up at once: here nobody floods us with tokens of unknown keys.
    cooldown_duration=0,
)
calls: list[dict[str, Any]] = []
app = FastAPI(title="orders")


class Refused(Exception):
    """The caller may not have what it asks for."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def verified(authorization: str | None, scope: str) -> dict[str, Any]:
    """Return the claims of a bearer token that is good for this API and has a scope.

    Raises:
        Refused: It is not.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(401, "no bearer token")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token),
            algorithms=["RS256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": ["exp", "nbf", "aud", "iss", "azp", "oid", "idtyp"]},
        )
    except jwt.PyJWTError as error:
        raise Refused(401, type(error).__name__) from error
    if scope not in claims.get("scp", "").split() and ROLE not in claims.get("roles", ()):
        raise Refused(403, "neither scope nor role")
    if is_agent(claims) and "xms_par_app_azp" not in claims:
        raise Refused(403, "an agent without blueprint")
    return claims


def is_agent(claims: dict[str, Any]) -> bool:
    """Tell whether an agent identity is acting: Entra says so among the actor's facets."""
    return AGENT_FACET in claims.get("xms_act_fct", "").split()


def stated(authorization: str | None) -> dict[str, Any]:
    """Return what a token says of itself, good or not: what arrived must be known either way."""
    token = (authorization or "").rpartition(" ")[2]
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}
    return claims


def received(request: Request, scope: str) -> dict[str, Any]:
    """Remember who calls, and return the claims of a caller who may."""
    authorization = request.headers.get("authorization")
    record: dict[str, Any] = {"refused": None}
    calls.append(record)
    record["claims"] = {n: v for n, v in stated(authorization).items() if n in SHOWN}
    try:
        return verified(authorization, scope)
    except Refused as refusal:
        record["refused"] = str(refusal)
        raise HTTPException(refusal.status, str(refusal)) from refusal


@app.get("/orders")
def orders(request: Request) -> dict[str, Any]:
    """Answer with orders, and with who asked according to the token."""
    claims = received(request, SCOPE)
    return {
        "orders": [{"id": 1001, "item": "desk lamp"}, {"id": 1002, "item": "chair"}],
        "called_by": {name: claims[name] for name in SHOWN if name in claims},
        "by_an_agent": is_agent(claims),
    }


@app.post("/mcp")
def call_tool(request: Request, message: dict[str, Any]) -> dict[str, Any]:
    """Run a tool."""
    name = message["params"]["name"]
    received(request, TOOLS[name])
    content = [{"type": "text", "text": f"{name}: done"}]
    return {"jsonrpc": "2.0", "id": message["id"], "result": {"content": content}}


@app.get("/calls")
def called() -> list[dict[str, Any]]:
    """Return every call so far, oldest first: whether it was refused, and the claims it came with."""
    return calls
