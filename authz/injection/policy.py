"""`render`: the admission policy of kubernetes/components/interception, made of the table in `rules`.

    python -m authz.injection.policy FILE

An API server sees pods in which Envoy and authz are already. So what the policy needs beside the table is
which containers those are. It goes by what a container runs, as which user and with which rights; the name
counts for nothing. The rules themselves are not here.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from authz.injection.annotations import CLIENT_SECRET
from authz.injection.containment import known
from authz.injection.parts import Object, all_parts
from authz.injection.rules import (
    KINDS_EXPECTED,
    RULES,
    VOLUMES,
    Holds,
    Known,
    Lacks,
    Only,
    Outside,
    Positive,
    Rule,
    Scope,
    Test,
)

NAME: Final = "authz-interception"
ENFORCED: Final = "enforced"
"""Of the label `NAME` of the namespaces in which the policy counts."""

_HEAD: Final = """\
# Made by `make docs` from the rules of injection (authz/injection/rules.py), not written by hand: what injection
# refuses, and this policy, are the same.
#
# Keeps the users that are not redirected for Envoy and authz, the right to change the rules for the init
# container, and the credential for authz. It counts for pods of namespaces with the label
# `authz-interception: enforced`, and is for a cluster's administrator to apply: it is no part of the component,
# which a namespace's owner may use.
#
# FIRST put the images of your installation into the variable `images`, with or without tag or digest. A container
# is Envoy, authz, or the one that sets the rules, by image, program, user and rights. Its name counts for nothing.
# `drivers` has the CSI drivers whose volumes pods may have, as `--csi-driver` of injection.
"""
_RIGHTS: Final = (
    ("serviceaccounts/token", "create", ("variables.account",)),
    ("secrets", "get", ("variables.held[0]", "variables.held[1]")),
    ("secrets", "get", ("variables.held[2]", "variables.held[3]")),
    ("secrets", "list", ("variables.held[0]", "variables.held[1]")),
    ("secrets", "list", ("variables.held[2]", "variables.held[3]")),
    ("pods", "create", ()),
    ("pods/exec", "create", ()),
    ("pods/exec", "get", ()),
)
"""Of an account, and on which objects: with its token and one of these an app gets the credential by the API.

An API server alone knows them, so these are no rules of the table. What one expression may cost is limited to
two such questions: the first four Secrets that authz has mounted are asked about.
"""
_ROOTS: Final = {
    Scope.METADATA: "object.metadata",
    Scope.POD: "object.spec",
    Scope.VOLUME: "variables.theirs",
    Scope.CONTAINER: "variables.others",
    Scope.EPHEMERAL: "object.spec.?ephemeralContainers.orValue([])",
}
_EACH: Final = {Scope.VOLUME: "v", Scope.CONTAINER: "c", Scope.EPHEMERAL: "c"}


def render() -> str:
    """Return the text of the file."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["pods", "pods/ephemeralcontainers"],
                    }
                ]
            },
            # Pods that are there are left alone, so that controllers can change their metadata, and end them.
            "matchConditions": [
                {
                    "name": "gives-something",
                    "expression": "request.operation == 'CREATE' || object.spec != oldObject.spec",
                }
            ],
            "variables": [
                {"name": name, "expression": text} for name, text in _variables().items()
            ],
            "validations": [
                {"expression": _kinds(), "message": f"spec.volumes[]: {KINDS_EXPECTED}"}
            ]
            + [
                {"expression": _expression(rule), "message": _message(rule)}
                for rule in RULES
                if not rule.before
            ]
            # Each by itself: what one expression may cost is limited.
            + [_without_right(*right) for right in _RIGHTS],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {
            "policyName": NAME,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {NAME: ENFORCED}}},
        },
    }
    text = yaml.dump_all(
        [policy, binding], Dumper=_Folding, sort_keys=False, width=110, default_flow_style=None
    )
    return f"{_HEAD}{text}"


# ---- Whose each part of the pod is


def _variables() -> dict[str, str]:
    """Return the policy's variables in order: each may use those before it."""
    parts = all_parts()
    containers = {each["name"]: each for each in (*parts["initContainers"], *parts["containers"])}
    intercept = parts["interception"]["container"]
    containers[intercept["name"]] = intercept
    sets = known(parts)
    images = {name: [_repository(containers[name])] for name in ("authz", "envoy", "intercept")}
    prepare = [*containers["check-config"]["args"], parts["https"]["prepare"]]
    programs = {
        "envoy": _program("envoy", containers["envoy"]),
        "authz": _program("authz", containers["authz"], containers["authz"]["args"]),
        "check-config": _program(
            "authz", containers["check-config"], containers["check-config"]["args"], prepare
        ),
    }
    hook = containers["authz"]["lifecycle"]["preStop"]["exec"]["command"]
    (shared,) = (mount["name"] for mount in parts["https"]["app"]["volumeMounts"])
    ours = " || ".join(f"({text})" for text in programs.values())
    return {
        "images": _cel(images),
        "drivers": "[]",
        Known.USERS.value: _cel(sets[Known.USERS]),
        Known.PORTS.value: _cel(sets[Known.PORTS]),
        Known.PORT_NAMES.value: _cel(sets[Known.PORT_NAMES]),
        # Of containers that name none.
        "user": "object.spec.?securityContext.?runAsUser.orValue(-1)",
        "present": "object.spec.containers + object.spec.?initContainers.orValue([])",
        # They run what they are for, and nothing that somebody has added to it: as hook or probe, either.
        "plain": (
            "variables.present.filter(c, c.?securityContext.?capabilities.?drop.orValue([]).exists(x, x == 'ALL')"
            " && !c.?securityContext.?privileged.orValue(false)"
            " && !c.?securityContext.?allowPrivilegeEscalation.orValue(true)"
            " && !c.?lifecycle.?postStart.hasValue()"
            f" && c.?lifecycle.?preStop.?exec.?command.orValue({_cel(hook)}) == {_cel(hook)}"
            " && !c.?startupProbe.?exec.hasValue() && !c.?readinessProbe.?exec.hasValue()"
            " && !c.?livenessProbe.?exec.hasValue())"
        ),
        "ours": (
            f"variables.plain.filter(c, !has(c.command) && ({ours})"
            " && c.?securityContext.?capabilities.?add.orValue([]) == [])"
            # It ends before the app starts.
            " + variables.plain.filter(c, "
            "object.spec.?initContainers.orValue([]).exists(i, i.name == c.name) && !has(c.restartPolicy)"
            f" && ({_is_image('intercept')})"
            f" && c.?command.orValue([]) == {_cel(intercept['command'])} && !has(c.args)"
            f" && c.securityContext.?runAsUser.orValue(-1) == {intercept['securityContext']['runAsUser']}"
            " && c.securityContext.?capabilities.?add.orValue([])"
            f" == {_cel(intercept['securityContext']['capabilities']['add'])})"
        ),
        # Ephemeral containers are always somebody's own. Names are unique in a pod.
        "others": (
            "variables.present.filter(c, !variables.ours.exists(o, o.name == c.name))"
            " + object.spec.?ephemeralContainers.orValue([])"
        ),
        Known.CONTAINERS.value: "variables.ours.map(o, o.name)",
        # What Envoy or authz has mounted and is more than configuration, or than the account's token for the
        # API server. Whom to trust may be read by all.
        "kept": (
            "object.spec.?volumes.orValue([]).filter(v, !has(v.configMap) && !has(v.downwardAPI)"
            " && (!has(v.projected) || v.projected.?sources.orValue([]).exists(s, has(s.secret)"
            " || s.?serviceAccountToken.?audience.orValue('') != ''))"
            " && variables.ours.exists(o, o.?volumeMounts.orValue([]).exists(m, m.name == v.name))"
            f" && (v.name != '{shared}' || variables.others.exists(c, c.?volumeMounts.orValue([])"
            f".exists(m, m.name == '{shared}' && !m.?readOnly.orValue(false)))))"
        ),
        Known.VOLUMES.value: "variables.kept.map(v, v.name)",
        # Lists of names, by where authz has them from: whatever the Secret is called.
        Known.SECRETS.value: (
            "variables.kept.map(v, [?v.?secret.?secretName] + v.?projected.?sources.orValue([])"
            ".filter(s, has(s.secret)).map(s, s.secret.name))"
            " + variables.ours.map(o, o.?env.orValue([]).filter(e, e.?valueFrom.?secretKeyRef.hasValue())"
            ".map(e, e.valueFrom.secretKeyRef.name)"
            " + o.?envFrom.orValue([]).filter(e, has(e.secretRef)).map(e, e.secretRef.name))"
            f" + [[?object.metadata.?annotations[?'{CLIENT_SECRET}']]]"
        ),
        "theirs": "object.spec.?volumes.orValue([]).filter(v, !(v.name in variables.volumes))",
        "account": "object.spec.?serviceAccountName.orValue('default')",
        "held": "variables.kept.filter(v, has(v.secret)).map(v, v.secret.secretName)",
        # Whether the app may speak for the pod's account, beside a credential.
        "speaks": (
            "size(variables.ours) > 0 && variables.theirs.exists(v,"
            " v.?projected.?sources.orValue([]).exists(s, has(s.serviceAccountToken)))"
        ),
    }


def _program(images: str, container: Object, *arguments: list[str]) -> str:
    """Return what tells that a container `c` runs one of ours, as the user that it has."""
    user = container["securityContext"]["runAsUser"]
    wanted = f" && c.?args.orValue([]) in {_cel(arguments)}" if arguments else ""
    return f"({_is_image(images)}) && c.?securityContext.?runAsUser.orValue(-1) == {user}{wanted}"


def _is_image(name: str) -> str:
    # A repository with any tag or digest: neither has a slash, which a registry's port would be followed by.
    return (
        f"variables.images['{name}'].exists(r, c.image == r || ((c.image.startsWith(r + ':') || "
        "c.image.startsWith(r + '@')) && !c.image.substring(size(r)).contains('/')))"
    )


def _repository(container: Object) -> str:
    found: str = container["image"].rpartition(":")[0]
    return found


# ---- The rules


def _message(rule: Rule) -> str:
    where = " (of every container)" if rule.scope is Scope.CONTAINER else ""
    return f"{rule.scope}.{rule.field}{where}: {rule.expected}"


def _without_right(resource: str, verb: str, names: tuple[str, ...]) -> dict[str, str]:
    kind, _, subresource = resource.partition("/")
    below = f".subresource('{subresource}')" if subresource else ""
    asked = (
        "authorizer.serviceAccount(request.namespace, variables.account)"
        f".group('').resource('{kind}'){below}.namespace(request.namespace)"
    )
    checks = [f"{asked}.name({name}).check('{verb}').allowed()" for name in names]
    if kind == "secrets":
        # That many there may not be.
        checks = [
            f"(size(variables.held) > {name[-2]} && {check})"
            for name, check in zip(names, checks, strict=True)
        ]
    found = " || ".join(checks or [f"{asked}.check('{verb}').allowed()"])
    return {
        "expression": f"!variables.speaks || !({found})",
        "message": (
            f"spec.serviceAccountName: expected an account that may not {verb} {resource}, or "
            "automountServiceAccountToken: false: with the account's token the app could get the credential"
        ),
    }


def _kinds() -> str:
    known_kinds = " || ".join(f"has(v.{kind})" for kind in VOLUMES)
    return (
        f"object.spec.?volumes.orValue([]).all(v, {known_kinds}"
        " || v.?csi.?driver.orValue('') in variables.drivers)"
    )


def _expression(rule: Rule) -> str:
    root, each = _ROOTS[rule.scope], _EACH.get(rule.scope)
    if each is None:
        return _of(root, rule.field, rule.test)
    return f"{root}.all({each}, {_of(each, rule.field, rule.test)})"


def _of(place: str, field: str, test: Test) -> str:
    """Return the expression for a field, of which some part may not be there."""
    if field.endswith("}"):
        name, _, prefix = field.removesuffix("}").partition("{")
        found = f"{place}.?{name}.orValue({{}})"
        return f"{found}.all(k, !k.startsWith('{prefix}') || {_holds(f'{found}[k]', test)})"
    head, found_list, rest = field.partition("[]")
    if found_list:
        depth = f"x{field.count('[]')}"
        inner = _of(depth, rest.removeprefix("."), test) if rest else _holds(depth, test)
        return f"{_optional(place, head)}.orValue([]).all({depth}, {inner})"
    return _leaf(place, field, test)


def _leaf(place: str, field: str, test: Test) -> str:
    found = _optional(place, field)
    match test:
        case Only(values, required):
            # Where the field must be there, a switch that is not there is the one that is not allowed.
            missing = not values[0] if required else values[0]
            return _holds(f"{found}.orValue({_cel(missing)})", test)
        case Holds():
            return _holds(f"{found}.orValue([])", test)
        case Outside(Known.USERS) | Positive():
            return _holds(f"{found}.orValue(variables.user)", test)
        case Outside(Known.PORTS):
            return _holds(f"{found}.orValue(0)", test)
        case Lacks() | Outside():
            return _holds(f"{found}.orValue('')", test)


def _holds(leaf: str, test: Test) -> str:
    match test:
        case Only((value,)):
            return f"{leaf} == {_cel(value)}"
        case Only(values):
            return f"{leaf} in {_cel(values)}"
        case Holds(value):
            return f"{_cel(value)} in {leaf}"
        case Lacks(texts):
            return " && ".join(f"!{leaf}.lowerAscii().contains({_cel(text)})" for text in texts)
        case Outside(Known.SECRETS):
            return f"!variables.secrets.exists(names, {leaf} in names)"
        case Outside(named):
            return f"!({leaf} in variables.{named.value})"
        case Positive():
            return f"{leaf} > 0"


def _optional(place: str, path: str) -> str:
    return place + "".join(f".?{name}" for name in path.split("."))


def _cel(value: Any) -> str:
    """Return a literal."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}'"
        case Mapping():
            return "{" + ", ".join(f"{_cel(k)}: {_cel(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_cel, value)) + "]"
        case _:
            return str(value)


class _Folding(yaml.SafeDumper):
    """Writes expressions as folded text, and lists indented as kubectl does."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is the library's
        """Alias nothing."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the library's
        """Indent lists as everything else."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = ">" if len(value) > 60 else None  # noqa: PLR2004 - a short line
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Folding.add_representer(str, _text)

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
