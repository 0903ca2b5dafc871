"""The reference of the configuration in Markdown: tables from the model, around a text kept here."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.config.effect import AT_START
from authz.config.entra_sdk.keys import KEYS
from authz.config.model import Config
from authz.config.reading.variables import CONFIG_VARIABLE, MAY_BE_OFF, OFF, OVERRIDES
from authz.config.sections.values import span

Node = Mapping[str, Any]

_HEAD: Final = f"""\
# Configuration

<!-- Generated from authz/config: python -m authz.config.publish.schema docs/ -->

`authz` reads one YAML file: `authz serve --config FILE`, or the file that `{CONFIG_VARIABLE}` names. With
neither, it reads the [environment keys of the Entra SDK sidecar](#environment-keys-of-the-entra-sdk-sidecar).

`authz check-config FILE` prints every fault with its line and exits with 2. Editors and CI can use
[authz.schema.json](authz.schema.json).

- **Unknown keys are faults**, and so are duplicate keys, tags, anchors and aliases.
- **Secrets are references.** A secret is the path of a file (`file`) or the name of an environment variable
  (`env`). No key takes the secret itself.
- **`${{NAME}}`** as a whole value stands for the environment variable `NAME`, which must be set and not
  empty. Inside of a longer value it is a fault. YAML wants quotes around it inside of `{{…}}` and `[…]`.
- **Durations** are numbers of seconds or text: `250ms`, `30s`, `5m`, `1h`. **Sizes** are numbers of bytes or
  text: `16KiB`, `64MiB`, `1GiB`.
- **Names** (of blueprints, applications, agents and routes) are yours: at most 64 letters, digits, `.`, `_`
  and `-`. Envoy selects a route by its name (`authz.route`), or by host on egress.
- **A changed file is read again** every `reload_interval`. A version with faults changes nothing: the old one
  stays, and the faults are logged. Some keys [wait for the next start](#keys-that-wait-for-the-next-start).
"""

_EXAMPLE: Final = """\
## Example

A sidecar with one agent: `docs/examples/sidecar.yaml`.
"""

_AT_START: Final = """\
## Keys that wait for the next start

All other keys are in effect as soon as a new version is applied. Where one of these has changed, the rest of the
version is applied, and the key stays as it was at the start: for every part of the service. The log says `takes
effect at the next start` with the key, and `/status` lists it under `waits_for_start`. A version in which the rest
does not go together with a key that waits is refused. With a section come all of its keys.

| Key | Why |
|---|---|
"""

_VARIABLES: Final = """\
## Variables that go before either form

| Variable | Sets |
|---|---|
"""

_DROP_IN: Final = """\
## Environment keys of the Entra SDK sidecar

Without a file, the keys that configure Microsoft's "Entra SDK for Agent ID" sidecar configure this service: one
client named `default`, one inbound route named `default`, and one egress route for each `DownstreamApis__NAME`,
selected by the host of its `BaseUrl`. Keys are read in any case, with `__` or `:` between parts.

The sidecar's [HTTP API](sidecar-api.md) is served as well: there the agent is taken from each request, as the
sidecar does it. For Envoy the agent is configured, by keys of our own:

| `AgentIdentity` | `AgentUsername` or `AgentUserId` | `RequestAppToken` | flow |
|---|---|---|---|
| yes | no | `false` or absent | `on_behalf_of` |
| yes | no | `true` | `autonomous` |
| yes | yes | `false` or absent | `agent_user` |
| no | no | `false` or absent | `app_on_behalf_of` |
| no | no | `true` | `app` |

Every other combination is a fault. Where several APIs have the same host, the host selects none of them, and
Envoy has to name the route.

A key that is *refused* is a fault: leaving it out would give another token, or admit another caller, than its
author meant. A key with *no effect* is reported when the service starts. So is a key that nobody knows, unless
it looks like a misspelt one: then it is a fault.

| Key | Use | Meaning |
|---|---|---|
"""


def reference(example: str) -> str:
    """Return the reference.

    Args:
        example: A configuration file to show.
    """
    schema = Config.model_json_schema()
    variables = "".join(f"| `{entry.variable}` | {_sets(entry)} |\n" for entry in OVERRIDES)
    waiting = "".join(f"| `{key}` | {reason} |\n" for key, reason in AT_START.items())
    keys = "".join(f"| `{key.name}` | {key.use} | {key.meaning} |\n" for key in KEYS)
    return "\n".join(
        [
            _HEAD,
            f"{_EXAMPLE}\n```yaml\n{example}```\n",
            *_sections(schema),
            _AT_START + waiting,
            _VARIABLES + variables,
            _DROP_IN + keys,
        ]
    )


def _sets(entry: Any) -> str:
    off = f"; `{OFF}` stands for `null`" if entry.key in MAY_BE_OFF else ""
    return f"`{entry.section}.{entry.key}`{off}"


def _sections(schema: Node) -> Iterator[str]:
    shown: dict[str, str] = {}
    for name, node in schema["properties"].items():
        entry = next(iter(node.get("patternProperties", {}).values()), None)
        body = _resolved(schema, entry or node)
        if "properties" not in body:
            continue
        path = f"{name}.<name>" if entry else name
        title = f"## `{path}`\n\n{body['description']}\n"
        table = _table(schema, body)
        if table in shown:
            yield f"{title}\nThe keys are those of `{shown[table]}`.\n"
        else:
            yield f"{title}\n{table}"
        shown.setdefault(table, path)
        if name == "applications":
            yield from _credentials(schema)
    top = {
        name: node
        for name, node in schema["properties"].items()
        if "properties" not in _resolved(schema, node) and "patternProperties" not in node
    }
    yield f"## Other keys\n\n{_table(schema, {'properties': top})}"


def _credentials(schema: Node) -> Iterator[str]:
    """Describe the entries of `credentials`: each is a mapping with one key."""
    entry = schema["$defs"]["Application"]["properties"]["credentials"]["items"]
    yield (
        "## `credentials`\n\nA list. Each entry is a mapping with one key that names its kind; "
        "they are tried in order.\n"
    )
    for kind, node in entry["properties"].items():
        body = _resolved(schema, node)
        yield f"### `{kind}`\n\n{body['description']}\n\n{_table(schema, body)}"


def _table(schema: Node, body: Node) -> str:
    rows = "".join(
        f"| `{key}` | {_kind(schema, node)} | {default} | {_meaning(schema, node)} |\n"
        for key, node, default in _rows(schema, body, "")
    )
    return f"| Key | Type | Default | Meaning |\n|---|---|---|---|\n{rows}"


def _rows(schema: Node, body: Node, prefix: str) -> Iterator[tuple[str, Node, str]]:
    required = body.get("required", ())
    for name, node in body["properties"].items():
        inner, entry = _inner(schema, node), _inner(schema, node.get("items", {}))
        yield f"{prefix}{name}", node, _default(schema, node, required=name in required)
        if inner is not None:
            yield from _rows(schema, inner, f"{prefix}{name}.")
        elif entry is not None:
            yield from _rows(schema, entry, f"{prefix}{name}[].")


def _inner(schema: Node, node: Node) -> Node | None:
    for option in node.get("anyOf", [node]):
        body = _resolved(schema, option)
        if "$ref" in option and "properties" in body:
            return body
    return None


def _resolved(schema: Node, node: Node) -> Node:
    reference = node.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else node


def _kind(schema: Node, node: Node) -> str:
    body = _resolved(schema, node)
    if "x-kind" in body:
        return str(body["x-kind"])
    if "enum" in body:
        return ", ".join(f"`{value}`" for value in body["enum"])
    if "anyOf" in body:
        return _kind(schema, body["anyOf"][0])
    if body.get("type") == "array":
        return f"list: {_kind(schema, body['items'])}"
    return str({"object": "mapping", "null": "nothing"}.get(body["type"], body["type"]))


def _meaning(schema: Node, node: Node) -> str:
    # Pydantic leaves a description out where it repeats the section's own.
    return str(node.get("description") or _resolved(schema, node).get("description", ""))


def _default(schema: Node, node: Node, *, required: bool) -> str:
    if "x-default" in node:
        return str(node["x-default"])
    if required:
        return "required"
    value = node.get("default")
    kind = _kind(schema, node)
    if value is None or value == []:
        return ""
    if kind == "duration":
        return f"`{span(value)}`"
    if kind == "size":
        return f"`{_size(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _size(value: int) -> str:
    for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
        if value % size == 0:
            return f"{value // size}{unit}"
    return str(value)
