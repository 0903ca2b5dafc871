"""Mistakes that are usual in a first configuration: `authz check-config` names the place and the fix."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import main
from config.samples import AGENT, CLIENT, TENANT

RIGHT = f"""\
listen:
  grpc: 127.0.0.1:9901
blueprints:
  support:
    tenant_id: {TENANT}
    client_id: {CLIENT}
    credentials:
      - client_secret: {{file: SECRET_FILE}}
agents:
  desk:
    blueprint: support
    agent_identity: {AGENT}
inbound:
  chat:
    agent: desk
    scopes: [access_agent]
egress:
  orders:
    hosts: [orders.example]
    flow: on_behalf_of
    agent: desk
    scopes: [api://orders/Read]
"""
HOSTS, SCOPES, FLOW = "[orders.example]", "[api://orders/Read]", "    flow: on_behalf_of\n"
START = "listen:\n"
GUID = "expected a GUID such as 11111111-2222-3333-4444-555555555555"

MISTAKES: dict[str, tuple[str, str, str, str]] = {
    # What is written in place of what, where the fault is, and the words of the fix.
    "variable as a shell has it": (TENANT, "$TENANT_ID", "blueprints.support.tenant_id (line 5)", "expected ${TENANT_ID}"),
    "variable as Kubernetes has it": (CLIENT, "$(CLIENT_ID)", "blueprints.support.client_id (line 6)", "expected ${CLIENT_ID}"),
    "variable that is not set": (TENANT, "${TENANT_ID}", "blueprints.support.tenant_id (line 5)", "environment variable TENANT_ID is not set"),
    "variable of another spelling": (CLIENT, "${CLIENT_ID}", "blueprints.support.client_id (line 6)", "environment variable CLIENT_ID is not set; did you mean 'CLIENTID'?"),
    "secret by a variable that is not set": ("SECRET_FILE", "'${SECRET_FILE}'", "client_secret.file (line 8)", "environment variable SECRET_FILE is not set: expected a value in it"),
    "variable inside of a value": (SCOPES, '["${API}/Read"]', "egress.orders.scopes.0 (line 22)", "expected ${NAME} alone, with the whole value in the variable"),
    "variable in brackets": (SCOPES, "[${SCOPE}]", "line 22", 'expected quotes around a reference inside of brackets, ["${NAME}"]'),
    "template": (AGENT, "{{ .Values.agent }}", "agents.desk.agent_identity (line 12)", "fill in a template"),
    "place to fill in": (AGENT, "<agent id>", "agents.desk.agent_identity (line 12)", "expected the value itself, or ${NAME}"),
    "secret itself": ("{file: SECRET_FILE}", "hunter2", "client_secret (line 8)", "expected {file: PATH} or {env: NAME}"),
    "secret in place of its file": ("SECRET_FILE", "Qx7~hunter2", "client_secret.file", "expected the path of a file that holds the secret"),
    "secret's file missing": ("SECRET_FILE", "/nowhere/secret", "client_secret.file", "/nowhere/secret: No such file or directory: authz is not ready until this file can be read"),
    "secret's variable not set": ("{file: SECRET_FILE}", "{env: CLIENT_SECRET}", "client_secret.env", "CLIENT_SECRET is not set: authz is not ready until it is"),
    "authorities garbage": (START, f"entra: {{ca_file: GARBAGE}}\n{START}", "entra.ca_file", "PEM: texts from -----BEGIN CERTIFICATE-----"),
    "authorities in DER": (START, f"api: {{ca_file: DER}}\n{START}", "api.ca_file", "openssl x509 -inform der -in FILE"),
    "GUID in braces": (AGENT, f"'{{{AGENT}}}'", "agents.desk.agent_identity (line 12)", f"{GUID}, without braces"),
    "GUID without hyphens": (AGENT, AGENT.replace("-", "") , "agents.desk.agent_identity (line 12)", f"{GUID}, with its four hyphens"),
    "tenant by its name": (TENANT, "contoso.onmicrosoft.com", "blueprints.support.tenant_id (line 5)", "`az account show --query tenantId`"),
    "any tenant": (TENANT, "common", "blueprints.support.tenant_id (line 5)", "a tenant by its id"),
    "agent identity that is the blueprint": (AGENT, CLIENT, "agents.desk.agent_identity (line 12)", "is the client_id of blueprints.support: expected the id of the agent identity"),
    "agent identity that is the tenant": (AGENT, TENANT, "agents.desk.agent_identity (line 12)", "is the tenant_id of blueprints.support: expected the id of the agent identity"),
    "client that is the tenant": (CLIENT, TENANT, "blueprints.support.client_id (line 6)", "is the tenant_id: expected the application (client) id"),
    "port by its name": ("127.0.0.1:9901", "127.0.0.1:grpc", "listen.grpc (line 2)", "with a number as the port"),
    "port out of range": ("9901", "99011", "listen.grpc (line 2)", "expected a port from 0 to 65535"),
    "port alone": ("127.0.0.1:9901", "9901", "listen.grpc (line 2)", "with the host before the port, such as 127.0.0.1:9901"),
    "path of a socket": ("127.0.0.1:9901", "/run/authz.sock", "listen.grpc (line 2)", "with unix: before the path"),
    "host's port by its name": (HOSTS, "['orders.example:https']", "egress.orders.hosts.0 (line 19)", "expected a number as the port, such as orders.example:8443"),
    "wildcard with a port": (HOSTS, "['*.orders.example:8443']", "egress.orders.hosts.0 (line 19)", "name a host on another port by itself, such as orders.example:8443"),
    "wildcard without quotes": (HOSTS, "[*.orders.example]", "line 19", 'expected quotes around a text that begins with *, "*.example.com"'),
    "URL for a host": (HOSTS, "['https://orders.example/v1']", "egress.orders.hosts.0 (line 19)", "expected no path: 'https://orders.example'"),
    "Authorization removed": (FLOW, f"{FLOW}    remove_headers: [authorization]\n", "egress.orders.remove_headers.0 (line 21)", "leave it out, and where the agent shall send a credential of its own"),
    "flow of another spelling": ("on_behalf_of", "on-behalf-of", "egress.orders.flow (line 20)", "did you mean 'on_behalf_of'?"),
    "resource without a permission": (SCOPES, "[api://orders]", "egress.orders.scopes.0 (line 22)", "expected 'api://orders/.default', or the name of one permission"),
    "scopes of two resources": (SCOPES, "[api://orders/Read, User.Read]", "egress.orders.scopes (line 22)", "found scopes of api://orders and https://graph.microsoft.com: expected one resource"),
    "scopes in one text": (SCOPES, "['api://orders/Read api://orders/Write']", "egress.orders.scopes.0 (line 22)", "expected one scope without blanks"),
    "permission for an app's own token": ("on_behalf_of", "autonomous", "egress.orders.scopes (line 22)", "flow autonomous takes exactly one scope, which ends in /.default"),
    "scope with its resource": ("[access_agent]", "['api://agent/access_agent']", "inbound.chat.scopes.0 (line 16)", "expected the part after the last slash"),
    "audience of a URL": ("[access_agent]", "[access_agent]\n    audiences: ['https://agent.example']", "inbound.chat.audiences.0 (line 17)", f"expected {CLIENT} or api://{CLIENT}"),
    "text for a list": (SCOPES, "api://orders/Read", "egress.orders.scopes (line 22)", "expected a list, in brackets or with - before each entry"),
    "list for a mapping": ("  desk:\n", "  - desk:\n", "agents (line 9)", "expected a mapping, NAME: VALUE, with no - before it"),
    "mapping for a list": ("      - client", "        client", "blueprints.support.credentials (line 7)", "expected a list, in brackets or with - before each entry"),
    "unknown key": ("    agent_identity", "    agent_idenity", "agents.desk.agent_idenity (line 12)", "did you mean 'agent_identity'?"),
    "unknown name": ("    agent: desk\n    scopes: [access", "    agent: desc\n    scopes: [access", "inbound.chat.agent (line 15)", "did you mean 'desk'?"),
    "duplicate key": ("    client_id", f"    client_id: {CLIENT}\n    client_id", "blueprints.support.client_id (line 7)", "line 6 has it already"),
    "wrong indentation": ("    client_id", "     client_id", "line 6", "expected the keys of one mapping at the same indentation"),
    "tab": ("    client_id", "\tclient_id", "line 6", "expected spaces, found a tab"),
    "blank of a web page": ("    client_id", "\u00a0\u00a0\u00a0\u00a0client_id", "line 6", "expected spaces, found a blank that is not one"),
    "quotes of a word processor": (HOSTS, "[\u201corders.example\u201d]", "egress.orders.hosts.0 (line 19)", "expected \" or ', or none"),
    "quote without an end": (HOSTS, "['orders.example]", "line 19", "expected the quotation mark that ends the text"),
    "no blank after a colon": (f"client_id: {CLIENT}", f"client_id:{CLIENT}", "line 6", "with a blank after the colon"),
    "duration in words": (START, f"entra: {{timeout: 10 seconds}}\n{START}", "entra.timeout (line 1)", "expected a duration such as 30s, 5m, 1h or 250ms"),
    "duration in milliseconds": (START, f"entra: {{timeout: 5000}}\n{START}", "entra.timeout (line 1)", "or 250ms, or a number of seconds, from 100ms to 5m"),
    "yes": ("    credentials", "    any_agent: yes\n    credentials", "blueprints.support.any_agent (line 7)", "expected true or false"),
    "authority with its tenant": (START, f"entra: {{authority: 'https://login.microsoftonline.com/{TENANT}'}}\n{START}", "entra.authority (line 1)", "expected an https URL without tenant or path"),
    "ConfigMap around it": (START, f"apiVersion: v1\n{START}", "apiVersion (line 1)", "expected the text of authz.yaml alone, not a Kubernetes object around it"),
    "references that nobody looks for": ("[access_agent]", "[access_agent]\n    forward: placeholder", "egress.orders.subject", "expected subject: [placeholder]"),
    "no scopes for users": ("    scopes: [access_agent]\n", "", "inbound.chat.scopes", "expected the scopes of which one is needed"),
}  # fmt: skip
ONLY_DOUBTFUL = {
    "secret in place of its file",
    "secret's file missing",
    "secret's variable not set",
    "references that nobody looks for",
    "no scopes for users",
}
"""Mistakes after which the configuration is still valid."""


@pytest.fixture
def files(tmp_path: Path) -> Mapping[str, Path]:
    """Files that configurations name, by their marks there."""
    files = {name: tmp_path / name.lower() for name in ("SECRET_FILE", "GARBAGE", "DER")}
    files["SECRET_FILE"].write_text("hunter2")
    files["GARBAGE"].write_text("garbage")
    files["DER"].write_bytes(b"\x30\x82\x01\x02\xff\xfe")
    return files


def check(text: bytes, folder: Path) -> tuple[int, list[str]]:
    """Run the program on a text; return its status and the lines of faults and warnings."""
    (folder / "authz.yaml").write_bytes(text)
    others = dict.fromkeys(
        ("TENANT_ID", "CLIENT_ID", "SECRET_FILE", "CLIENT_SECRET", "API", "SCOPE")
    )
    done = CliRunner().invoke(
        main, ["check-config", str(folder / "authz.yaml")], env={**others, "CLIENTID": CLIENT}
    )
    return done.exit_code, done.stderr.splitlines()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_usual_mistake_is_found_with_its_place_and_its_fix(
    name: str, files: Mapping[str, Path], tmp_path: Path
) -> None:
    """One line holds both, and the secret that the file may hold in its place is nowhere."""
    right, wrong, place, fix = MISTAKES[name]
    text = RIGHT.replace(right, wrong, 1)
    for mark, file in files.items():
        text = text.replace(f" {mark}", f" {file}")

    status, lines = check(text.encode(), tmp_path)

    found = [line for line in lines if place in line and fix in line]
    assert (0 if name in ONLY_DOUBTFUL else 2, 1, False) == (
        status,
        len(found),
        "hunter2" in "".join(lines),
    ), lines


@pytest.mark.parametrize(
    ("begin", "end"),
    [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")],
    ids=["mark", "line ends", "both"],
)
def test_what_windows_writes_is_no_mistake(
    begin: bytes, end: bytes, files: Mapping[str, Path], tmp_path: Path
) -> None:
    """Its editors put a byte order mark before a text, and a carriage return before each line's end."""
    text = RIGHT.replace("SECRET_FILE", str(files["SECRET_FILE"])).encode()
    assert (0, []) == check(begin + text.replace(b"\n", end), tmp_path)
