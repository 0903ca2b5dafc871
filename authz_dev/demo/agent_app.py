"""The agent: an ordinary web application, in the code that its team would have written anyway.

It knows no tokens but the one it was called with, and reaches every API by plain HTTP through the proxy
that its environment names (`HTTP_PROXY`). Nothing in here belongs to this project.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response

GRAPH_URL = os.environ.get("GRAPH_URL", "http://graph.microsoft.com")
ORDERS_URL = os.environ.get("ORDERS_URL", "http://orders.contoso.example")
NIGHTLY_ORDERS_URL = os.environ.get("NIGHTLY_ORDERS_URL", "http://nightly.orders.contoso.example")
DESK_ORDERS_URL = os.environ.get("DESK_ORDERS_URL", "http://desk.orders.contoso.example")
DIRECTORY_URL = os.environ.get("DIRECTORY_URL", "http://directory.contoso.example")
OFFICE_URL = os.environ.get("OFFICE_URL", "http://office.contoso.example")
REPORTS_URL = os.environ.get("REPORTS_URL", "http://reports.orders.contoso.example")
BILLING_URL = os.environ.get("BILLING_URL", "http://billing.orders.contoso.example")
PAYROLL_URL = os.environ.get("PAYROLL_URL", "http://payroll.orders.contoso.example")
TOOLS_URL = os.environ.get("TOOLS_URL", "http://tools.orders.contoso.example")

RELAYED = ("content-type", "www-authenticate", "retry-after")


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Keep one pool of connections for the life of the application."""
    async with httpx.AsyncClient(timeout=10) as client:
        application.state.client = client
        yield


app = FastAPI(title="support agent", lifespan=lifespan)


async def call(request: Request, url: str, headers: dict[str, str] | None = None) -> Response:
    """Call an API and pass its answer on."""
    client: httpx.AsyncClient = request.app.state.client
    return relay(await client.get(url, headers=headers))


def relay(answer: httpx.Response) -> Response:
    """Pass an answer on."""
    relayed = {name: answer.headers[name] for name in RELAYED if name in answer.headers}
    return Response(answer.content, answer.status_code, relayed)


def as_caller(request: Request) -> dict[str, str]:
    """Forward the caller's own header, as many agents do."""
    return {"Authorization": request.headers["authorization"]}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that the application runs."""
    return {"status": "ok"}


@app.get("/whoami")
async def whoami(request: Request) -> dict[str, str]:
    """Show the identity headers that arrived, for the curious."""
    return {name: value for name, value in request.headers.items() if name.startswith("x-authz-")}


@app.get("/received")
async def received(request: Request) -> dict[str, str]:
    """Log what arrived to go on with, as one does when something does not work."""
    headers = {name: request.headers.get(name, "") for name in ("authorization", "baggage")}
    for name, value in headers.items():
        print(f"received {name}: {value}", flush=True)  # noqa: T201 - its log
    return headers


@app.get("/my-profile")
async def my_profile(request: Request) -> Response:
    """Look up the caller in Microsoft Graph."""
    return await call(request, f"{GRAPH_URL}/v1.0/me", as_caller(request))


@app.get("/my-name")
async def my_name(request: Request) -> Response:
    """Look up the caller's name."""
    return await call(request, f"{OFFICE_URL}/v1.0/me", as_caller(request))


@app.get("/my-mail")
async def my_mail(request: Request) -> Response:
    """Fetch the caller's mail."""
    return await call(request, f"{OFFICE_URL}/v1.0/me/messages", as_caller(request))


@app.get("/my-orders")
async def my_orders(request: Request) -> Response:
    """Fetch the caller's orders."""
    return await call(request, f"{ORDERS_URL}/orders", as_caller(request))


@app.get("/my-orders-traced")
async def my_orders_traced(request: Request) -> Response:
    """Fetch the caller's orders by a library that hands on nothing but what belongs to tracing.

    An agent that is started with OpenTelemetry's instrumentation does so in each call, without this line.
    """
    traced = {name: request.headers[name] for name in ("baggage",) if name in request.headers}
    return await call(request, f"{ORDERS_URL}/orders", traced)


@app.get("/my-report")
async def my_report(request: Request) -> Response:
    """Fetch orders for the caller, as the reports application does."""
    return await call(request, f"{REPORTS_URL}/orders", as_caller(request))


@app.get("/fetch")
async def fetch(request: Request, url: str) -> Response:
    """Fetch a page that the model asked for: the tool through which prompt injection works."""
    return await call(request, url, as_caller(request))


@app.get("/tools/{name}")
async def tool(request: Request, name: str) -> Response:
    """Call a tool of the orders' MCP server, as the model asked."""
    client: httpx.AsyncClient = request.app.state.client
    message = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}},
    }  # fmt: skip
    return relay(await client.post(f"{TOOLS_URL}/mcp", json=message, headers=as_caller(request)))


@app.get("/jobs/nightly")
async def nightly(request: Request) -> Response:
    """Run the nightly job: nobody is signed in."""
    return await call(request, f"{NIGHTLY_ORDERS_URL}/orders")


@app.get("/jobs/desk")
async def desk(request: Request) -> Response:
    """Work through the desk's own orders, with the desk's own user account."""
    return await call(request, f"{DESK_ORDERS_URL}/orders")


@app.get("/jobs/directory")
async def directory(request: Request, app_id: str) -> Response:
    """Look up an agent in the directory."""
    return await call(request, f"{DIRECTORY_URL}/v1.0/servicePrincipals(appId='{app_id}')")


@app.get("/jobs/billing")
async def billing(request: Request) -> Response:
    """Run the billing job, which is older than agent identities."""
    return await call(request, f"{BILLING_URL}/orders")


@app.get("/jobs/payroll")
async def payroll(request: Request) -> Response:
    """Run the payroll job, the busiest of all."""
    return await call(request, f"{PAYROLL_URL}/orders")
