"""Where the configuration comes from: a file, or the environment of the Entra SDK sidecar."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from authz.config.consistency.advice import advice
from authz.config.consistency.extras import missing_extras
from authz.config.entra_sdk.credentials import CREDENTIALS
from authz.config.entra_sdk.environment import is_environment_form, read_environment
from authz.config.entra_sdk.tenants import tenant_name
from authz.config.faults import ConfigError, Fault, Notice
from authz.config.model import Config, key_paths
from authz.config.reading.document import parse_with_origin
from authz.config.reading.named_files import faults_of_files
from authz.config.reading.validation import Origin
from authz.config.reading.variables import CONFIG_VARIABLE, unknown_variables, variable_of
from authz.system.files import BoundedFile, FileFault

_LARGEST: Final = 16 * 1024**2
"""Bytes; a ConfigMap holds one MiB."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with what came along.

    Attributes:
        config: The configuration.
        warnings: What the operator should know.
        digest: Digest of the source it was read from; see `ConfigSource.digest`.
        tenant_name: The tenant's domain name, whose id `ConfigSource.tenants` lacks: until it is there
            the configuration serves nobody.
    """

    config: Config
    warnings: tuple[Notice, ...]
    digest: str
    tenant_name: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """A place to load the configuration from, as often as it changes.

    Attributes:
        path: The file, or None for the environment form.
        environ: The environment.
        tenants: Ids of tenants by their domain names, as they are found out.
        files: Readers of the file, one for each path.
        piped: What a pipe gave: it gives that once, and never changes.
    """

    path: Path | None
    environ: Mapping[str, str]
    tenants: dict[str, str] = field(default_factory=dict)
    files: dict[Path, BoundedFile] = field(default_factory=dict, repr=False, compare=False)
    piped: dict[Path, bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def find(cls, path: Path | None, environ: Mapping[str, str]) -> "ConfigSource":
        """Return the source: the file given, else the file `AUTHZ_CONFIG` names, else the environment."""
        named = environ.get(CONFIG_VARIABLE)
        return cls(path or (Path(named) if named else None), environ)

    @property
    def is_pipe(self) -> bool:
        """Whether the file is what a shell passes on (`/dev/stdin`, `<(…)`), to be read to its end, once."""
        path = self.path
        return path is not None and (path.is_relative_to("/dev") or path.is_relative_to("/proc"))

    def load(self, *, to_serve: bool = False) -> Loaded:
        """Read, check and return the configuration.

        Args:
            to_serve: Whether it has to be of use here: the files of certificates that it names are
                opened, and extras that it needs are looked for. Else it can be rendered anywhere.

        Raises:
            ConfigError: With every fault.
        """
        notices = tuple(unknown_variables(self.environ, key_paths()))
        name, origin = None, Origin()
        if self.path is not None:
            content = self._content(self.path)
            config, origin = parse_with_origin(_decoded(content), self.environ)
        else:
            content = self._named_tenant()
            if not is_environment_form(self.environ):
                raise ConfigError([Fault("", _NOTHING_FOUND)])
            config, unsupported = read_environment(self.environ, self.tenants)
            notices += unsupported
            name = None if content else tenant_name(self.environ)
        if to_serve:
            missing = list(missing_extras(config))
            if self.path is None:
                missing = [replace(fault, path=CREDENTIALS) for fault in missing]
            files = (
                replace(fault, path=variable_of(fault.path, self.environ) or fault.path)
                for fault in faults_of_files(config)
            )
            if faults := [*missing, *files]:
                raise ConfigError(faults)
        return Loaded(
            config,
            notices
            + tuple(replace(each, line=origin.line_of(each.path)) for each in advice(config)),
            _digest(content),
            name,
        )

    def text(self) -> str:
        """Return the text of the file; empty for the environment form.

        Raises:
            ConfigError: The file cannot be read, or is no text.
        """
        return _decoded(self._content(self.path)) if self.path is not None else ""

    def digest(self) -> str:
        """Return the digest of the source as it is now; it differs when loading again is worthwhile.

        The environment of a process does not change; its digest does when a tenant's id has been found out.

        Raises:
            ConfigError: The file cannot be read.
        """
        return _digest(self._content(self.path) if self.path is not None else self._named_tenant())

    def _named_tenant(self) -> bytes:
        """Return the id of the tenant that the environment has by name, or nothing."""
        return self.tenants.get(tenant_name(self.environ) or "", "").encode()

    def _content(self, path: Path) -> bytes:
        if self.is_pipe:
            if path not in self.piped:
                self.piped[path] = _from_pipe(path)
            return self.piped[path]
        try:
            return self.files.setdefault(path, BoundedFile(path, max_bytes=_LARGEST)).read()
        except FileFault as fault:
            raise ConfigError([Fault(str(path), f"cannot be read: {fault}")]) from None


def _from_pipe(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}")]) from None
    if len(content) > _LARGEST:
        raise ConfigError([Fault(str(path), f"is larger than {_LARGEST} bytes")])
    return content


_NOTHING_FOUND: Final = (
    f"there is none: expected a YAML file (--config FILE or {CONFIG_VARIABLE}=FILE), or the "
    "environment keys of the Entra SDK sidecar (AzureAd__TenantId, AzureAd__ClientId, …)"
)


def load(path: Path | None, environ: Mapping[str, str], *, to_serve: bool = False) -> Loaded:
    """Load the configuration once; `ConfigSource` is for loading it again.

    Args:
        path: The file; None for the one `AUTHZ_CONFIG` names, or else the environment form.
        environ: The environment.
        to_serve: Whether it has to be of use here: its files of certificates, and the extras it needs.

    Raises:
        ConfigError: With every fault.
    """
    return ConfigSource.find(path, environ).load(to_serve=to_serve)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = Fault("", f"not valid YAML: byte {error.start} is not UTF-8")
    raise ConfigError([fault])
