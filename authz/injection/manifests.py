"""Manifests with several objects, of which those that ask for it are injected: `authz inject`."""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import yaml

from authz.injection.parts import Additions, Object
from authz.injection.pod import LABEL, WANTED, InjectionError, inject, is_wanted

_TEMPLATES: Final = {
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "Pod": (),
    "PodTemplate": ("template",),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where each kind has its pod: an object with metadata and spec."""


_LOADER: Final = yaml.loader.SafeLoader
"""The one in Python: libyaml's ends the process where a document is nested deeply enough."""
_END: Final = re.compile(r"^\.\.\.\s*$", re.MULTILINE)


class ManifestError(Exception):
    """The manifest cannot be read, or an object of it cannot be injected."""


def inject_manifest(text: str, additions: Additions) -> tuple[str, list[str]]:
    """Return the manifest with every object that asks for it injected, and the names of those.

    Documents in which nothing is injected stay byte by byte what they are.

    Raises:
        ManifestError: With what is wrong, and in which object.
    """
    done: list[str] = []
    written = []
    for document in _documents(text):
        before = len(done)
        changed = _changed(document.read(), additions, done)
        written.append(document.text if len(done) == before else document.replaced(changed))
    whole = "".join(written)
    return whole if not whole or whole.endswith("\n") else f"{whole}\n", done


@dataclass(frozen=True, slots=True)
class _Document:
    """A part of a manifest.

    Attributes:
        text: Up to where the next one begins.
        above: Lines of the manifest before it.
        is_marked: Whether it begins with `---`, or with directives before that.
    """

    text: str
    above: int
    is_marked: bool

    def read(self) -> Any:
        try:
            return yaml.load(self.text, Loader=_LOADER)  # noqa: S506 - a safe one
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _fault(error, self.above) from error

    def replaced(self, item: Any) -> str:
        start = "---\n" if self.is_marked else ""
        # Directives of the next one need it.
        end = "...\n" if _END.search(self.text) else ""
        return f"{start}{yaml.dump(item, Dumper=_Plain, sort_keys=False, width=110)}{end}"


def _documents(text: str) -> Iterator[_Document]:
    try:
        starts = [
            # From its line on: without `---` a document begins with its first word, which may be indented.
            (mark.index - mark.column, mark.line, bool(event.explicit))
            for event in yaml.parse(text, Loader=_LOADER)
            if isinstance(event, yaml.DocumentStartEvent) and (mark := event.start_mark) is not None
        ]
    except (yaml.YAMLError, RecursionError) as error:
        raise _fault(error, 0) from error
    # Comments before the first one are no part of it.
    for (here, above, is_marked), (end, _, _) in pairwise(
        [(0, 0, False), *starts, (len(text), 0, False)]
    ):
        if text[here:end]:
            yield _Document(text[here:end], above, is_marked)


def _fault(error: Exception, above: int) -> ManifestError:
    mark = getattr(error, "problem_mark", None)
    place = (
        f"line {above + mark.line + 1}"
        if mark is not None
        else f"the document from line {above + 1}"
    )
    return ManifestError(f"{place} is no YAML")


def _changed(item: Any, additions: Additions, done: list[str]) -> Any:
    if not isinstance(item, dict):
        return item
    kind = str(item.get("kind"))
    if kind.endswith("List") and isinstance(item.get("items"), list):
        return {**item, "items": [_changed(each, additions, done) for each in item["items"]]}
    path = _TEMPLATES.get(kind)
    if path is None:
        if _asks_somewhere(item):
            raise ManifestError(
                f"a pod in an object of kind {kind} has the label {LABEL}: {WANTED}, and that kind is not "
                f"known: expected one of {', '.join(_TEMPLATES)}, or the webhook"
            )
        return item
    changed = deepcopy(item)
    pod: Object = changed
    try:
        for key in path:
            pod = pod[key]
        metadata, spec = pod.get("metadata") or {}, pod["spec"]
        if not is_wanted(metadata):
            return item
        name = f"{item['kind']} {item['metadata']['name']}"
        pod["metadata"], pod["spec"] = inject(metadata, spec, additions)
    except InjectionError as error:
        raise ManifestError("\n".join(f"{name}: {fault}" for fault in error.faults)) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ManifestError(f"{kind} {_name(item)}: has no complete pod in it") from error
    done.append(name)
    return changed


def _name(item: Mapping[str, Any]) -> object:
    metadata = item.get("metadata")
    return (
        metadata.get("name", "without a name") if isinstance(metadata, dict) else "without a name"
    )


def _asks_somewhere(item: Any) -> bool:
    """Whether there is a pod with the label in it, wherever that kind of object has its pods."""
    if isinstance(item, list):
        return any(map(_asks_somewhere, item))
    if not isinstance(item, dict):
        return False
    metadata, spec = item.get("metadata"), item.get("spec")
    if isinstance(metadata, dict) and isinstance(spec, dict) and "containers" in spec:
        labels = metadata.get("labels")
        if isinstance(labels, dict) and is_wanted(metadata):
            return True
    return any(map(_asks_somewhere, item.values()))


class _Plain(yaml.SafeDumper):
    """Writes every value out, with lists indented as kubectl does."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is the library's
        """Alias nothing."""
        return True


NOTHING: Final = f"nothing is injected: no pod has the label {LABEL}: {WANTED}"
"""What to say where a manifest has no object that asks for it."""
