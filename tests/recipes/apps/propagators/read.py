"""What OpenTelemetry for Python makes of headers: one JSON document of lines in, one of findings out.

For each propagator, behind what an ASGI server, a WSGI server and a plain dictionary make of the lines: the
members that it finds, and the headers that it would send on.
"""

import json
import logging
import sys
from typing import Any

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.instrumentation.asgi import asgi_getter
from opentelemetry.instrumentation.wsgi import wsgi_getter
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator
from opentelemetry.propagators.textmap import default_getter

W3C, JAEGER, OT = W3CBaggagePropagator(), JaegerPropagator(), OTTracePropagator()
PROPAGATORS = {
    "w3c": W3C,
    "jaeger": JAEGER,
    "ottrace": OT,
    "w3c,jaeger,ottrace": CompositePropagator([W3C, JAEGER, OT]),
    "ottrace,jaeger,w3c": CompositePropagator([OT, JAEGER, W3C]),
}


def carriers(lines: list[tuple[str, str]]) -> list[tuple[str, Any, Any]]:
    """Return the lines as servers hand them to an application, with what reads them."""
    scope = {"headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in lines]}
    environ: dict[str, str] = {}
    joined: dict[str, str] = {}
    for name, value in lines:
        for whole, key in (
            (environ, f"HTTP_{name.upper().replace('-', '_')}"),
            (joined, name.lower()),
        ):
            whole[key] = f"{whole[key]},{value}" if key in whole else value
    return [
        ("asgi", scope, asgi_getter),
        ("wsgi", environ, wsgi_getter),
        ("dict", joined, default_getter),
    ]


def read(lines: list[tuple[str, str]]) -> dict[str, Any]:
    """Return what each propagator finds, and sends on."""
    found = {}
    for server, carrier, getter in carriers(lines):
        for name, propagator in PROPAGATORS.items():
            context = propagator.extract(carrier, context=Context(), getter=getter)
            sent: dict[str, str] = {}
            propagator.inject(sent, context=context)
            found[f"{server} {name}"] = {
                "members": list(baggage.get_all(context).items()),
                "sent": list(sent.items()),
            }
    return found


logging.disable()
json.dump([read(lines) for lines in json.load(sys.stdin)], sys.stdout)
