"""What is asked of Envoy's administration interface: to let its callers go before it stops.

A running service asks for nothing there. `authz drain-envoy` does, from the pod's stop hook.
"""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final

FAIL_HEALTH: Final = "/healthcheck/fail"
"""From then on Envoy ends each connection with its next answer: `Connection: close`, or GOAWAY."""
_PATIENCE: Final = 2.0


class AdministrationError(Exception):
    """Envoy was not reached, or refused the request."""


def drain(address: str) -> None:
    """Have Envoy close its connections with their next answers. New ones are taken as before.

    Args:
        address: `host:port` of the administration interface.

    Raises:
        AdministrationError: It does not, and why.
    """
    connection = HTTPConnection(address, timeout=_PATIENCE)
    try:
        connection.request("POST", FAIL_HEALTH)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise AdministrationError(f"Envoy does not answer at {address}: {error}") from error
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise AdministrationError(
            f"Envoy answers {status} at {address}{FAIL_HEALTH}: render its configuration again"
        )
