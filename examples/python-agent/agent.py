"""An agent as a web application: it looks up orders for the user who asks, and at night for itself."""

import os

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

ORDERS_URL = os.environ["ORDERS_URL"]
NIGHTLY_ORDERS_URL = os.environ["NIGHTLY_ORDERS_URL"]

app = FastAPI(title="orders agent")


@app.get("/healthz")
def healthz() -> str:
    """Answer a probe."""
    return "ok"


@app.get("/my-orders")
def my_orders(request: Request) -> Response:
    """Look up the caller's orders; the header of the request is passed on as it came."""
    authorization = request.headers["authorization"]
    print(f"received {authorization[:26]}…", flush=True)
    return answer(f"{ORDERS_URL}/orders", {"authorization": authorization})


@app.get("/jobs/nightly")
def nightly() -> Response:
    """Look up all orders, with nobody signed in."""
    print("received no token", flush=True)
    return answer(f"{NIGHTLY_ORDERS_URL}/orders", {})


def answer(url: str, headers: dict[str, str]) -> Response:
    """Call the API by plain HTTP; httpx finds Envoy in HTTP_PROXY, and Envoy adds TLS and the token."""
    found = httpx.get(url, headers=headers, timeout=10)
    return Response(found.content, found.status_code, media_type=found.headers["content-type"])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
