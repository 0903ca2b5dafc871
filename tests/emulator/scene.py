"""A scene: an emulator and requests to it as clients make them. Fixtures are in `conftest`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt
import msal
import requests

from authz_dev.emulator import Emulator

EXCHANGE = "api://AzureADTokenExchange/.default"
GRAPH = "https://graph.microsoft.com/.default"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Clock:
    """Unix time that a test moves by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Seconds since the epoch, as far ahead as the test said."""
        return time.time() + self.ahead


@dataclass
class Scene:
    """The first tenant of an emulator, and requests to it, well-formed unless a test spoils them."""

    emulator: Emulator
    session: requests.Session

    def __post_init__(self) -> None:
        self.tenants = self.emulator.describe()["tenants"]
        self.tenant = self.tenants[0]
        self.tenant_id = self.tenant["tenant_id"]
        self.blueprint, self.other_blueprint = self.tenant["blueprints"]
        self.agent, self.sibling = self.blueprint["agents"]
        self.stranger = self.other_blueprint["agents"][0]
        self.portal, self.reports = self.tenant["apps"]
        self.apis = {api["name"]: api for api in self.tenant["apis"]}
        self.users = {u["username"].split("@")[0]: u for u in self.tenant["users"]}

    def post(self, _tenant: str | None = None, **form: str | None) -> requests.Response:
        """A token request; parameters that are None are left out."""
        url = f"{self.emulator.authority}/{_tenant or self.tenant_id}/oauth2/v2.0/token"
        data = {name: value for name, value in form.items() if value is not None}
        return self.session.post(url, data=data, allow_redirects=False, timeout=10)

    def as_blueprint(self, **changes: str | None) -> requests.Response:
        """Leg 1, with changed parameters."""
        form: dict[str, str | None] = {
            "client_id": self.blueprint["client_id"],
            "client_secret": self.blueprint["client_secret"],
            "grant_type": "client_credentials",
            "scope": EXCHANGE,
            "fmi_path": self.agent["client_id"],
        }
        return self.post(**(form | changes))

    def as_agent(self, **changes: str | None) -> requests.Response:
        """Leg 2 of the autonomous flow, with changed parameters."""
        form: dict[str, str | None] = {
            "client_id": self.agent["client_id"],
            "client_assertion_type": ASSERTION_TYPE,
            "grant_type": "client_credentials",
            "scope": GRAPH,
        } | changes
        if "client_assertion" not in form:
            form["client_assertion"] = self.t1()
        return self.post(**form)

    def on_behalf_of(self, assertion: str | None, **changes: str | None) -> requests.Response:
        """Leg 2 of the agent OBO flow, with changed parameters."""
        form = {
            "grant_type": JWT_BEARER,
            "assertion": assertion,
            "requested_token_use": "on_behalf_of",
        }
        return self.as_agent(**(form | changes))

    def agent_user(self, **changes: str | None) -> requests.Response:
        """Leg 3 of the agent user flow, with changed parameters."""
        form: dict[str, str | None] = {
            "grant_type": "user_fic",
            "username": self.agent["agent_user"],
        } | changes
        if "user_federated_identity_credential" not in form:
            form["user_federated_identity_credential"] = self.t2()
        return self.as_agent(**form)

    def t1(self, agent: dict[str, Any] | None = None) -> str:
        """A fresh T1 for the first agent, or for another one of the same blueprint."""
        fmi_path = (agent or self.agent)["client_id"]
        return str(self.as_blueprint(fmi_path=fmi_path).json()["access_token"])

    def t2(self) -> str:
        """A fresh T2 of the first agent."""
        return str(self.as_agent(scope=EXCHANGE).json()["access_token"])

    def user_token(self, user: str = "alice", **order: Any) -> str:
        """What the portal got for a user of the first tenant."""
        return self.emulator.mint_user_token(user=self.users[user]["object_id"], **order)

    def app(self, client_id: str, credential: Any) -> msal.ConfidentialClientApplication:
        """An unmodified MSAL client."""
        return msal.ConfidentialClientApplication(
            client_id,
            client_credential=credential,
            authority=f"{self.emulator.authority}/{self.tenant_id}",
            instance_discovery=False,
            http_client=self.session,
        )

    def blueprint_app(self) -> msal.ConfidentialClientApplication:
        """MSAL as the blueprint, with its secret."""
        return self.app(self.blueprint["client_id"], self.blueprint["client_secret"])

    def agent_app(self) -> msal.ConfidentialClientApplication:
        """MSAL as the first agent, proved by T1 that MSAL got as the blueprint."""
        blueprint = self.blueprint_app()

        def assertion(_: dict[str, Any]) -> str:
            result = blueprint.acquire_token_for_client(
                [EXCHANGE], fmi_path=self.agent["client_id"]
            )
            return str(result["access_token"])

        return self.app(self.agent["client_id"], {"client_assertion": assertion})


def trusting(emulator: Emulator) -> requests.Session:
    """A session that trusts the emulator's CA, whatever the environment says."""
    session = requests.Session()
    session.trust_env = False
    session.verify = str(emulator.ca_file)
    return session


def claims_of(token: str) -> dict[str, Any]:
    """The unverified claims of a token."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
