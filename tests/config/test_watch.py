"""Noticing new versions: once each, bad ones with their faults, and none where there is none."""

import os
from pathlib import Path

import pytest
import trustme

from authz.config import ConfigError, ConfigSource, ConfigWatch
from authz.config.reading.named_files import NamedFiles
from support.fakes.held_values import held

GOOD = "log: {level: info}\negress: {plain: {hosts: [a.example], flow: none}}\n"
OTHER = GOOD.replace("info", "debug")
_PAIR = {"certificate": "crt", "key": "key"}
BAD = GOOD.replace("info", "loud")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good configuration file."""
    path = tmp_path / "authz.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def watch(file: Path) -> ConfigWatch:
    """An eye on it."""
    return ConfigWatch(ConfigSource(file, {}))


def test_an_unchanged_file_is_no_new_version(watch: ConfigWatch) -> None:
    """Looking again finds nothing."""
    assert watch.look() is None


def test_a_new_version_is_returned_once(watch: ConfigWatch, file: Path) -> None:
    """Once the caller has taken it into use. Until then it is still to be applied."""
    file.write_text(OTHER)
    found = watch.look()

    assert found is not None
    assert "debug" == found.config.log.level
    assert found == watch.look()
    watch.adopt(found)
    assert found is watch.current
    assert watch.look() is None


def test_a_bad_version_is_raised_once_and_remembered(watch: ConfigWatch, file: Path) -> None:
    """Loud once, not at every look; the reason stays readable."""
    file.write_text(BAD)
    with pytest.raises(ConfigError, match=r"log\.level"):
        watch.look()

    assert watch.look() is None
    assert "log.level" in (watch.refused or "")


def test_a_repaired_file_ends_the_refusal(watch: ConfigWatch, file: Path) -> None:
    """Back to the version in use is no new version, and nothing is refused any more."""
    file.write_text(BAD)
    with pytest.raises(ConfigError):
        watch.look()
    file.write_text(GOOD)

    assert watch.look() is None
    assert watch.refused is None


def test_a_vanished_file_is_a_refused_version(watch: ConfigWatch, file: Path) -> None:
    """The old configuration goes on while the file is away."""
    file.unlink()
    with pytest.raises(ConfigError):
        watch.look()

    assert watch.refused is not None


def test_a_version_that_could_not_be_used_is_offered_again(watch: ConfigWatch, file: Path) -> None:
    """What was missing may be there the next time; the same reason is news only once."""
    file.write_text(OTHER)
    found = watch.look()

    assert [True, False, True] == [watch.refuse(reason) for reason in ("one", "one", "two")]
    assert ("two", found) == (watch.refused, watch.look())


def test_a_wish_to_look_again_outlives_a_look_that_had_begun(
    watch: ConfigWatch, file: Path
) -> None:
    """A named file may change while a new version is being applied, or after it was refused."""
    file.write_text(OTHER)
    found = watch.look()
    assert found is not None
    watch.look_again()
    watch.adopt(found)
    again = watch.look()
    assert again is not None
    watch.refuse("it cannot be built")
    offered = watch.look()
    watch.adopt(again)

    assert again == found == offered
    assert watch.look() is None


def test_a_file_that_a_version_names_is_opened(watch: ConfigWatch, file: Path) -> None:
    """Missing, empty or no certificate: the version is refused, and taken as soon as the file is good."""
    named = file.with_name("ca.pem")
    file.write_text(f"{GOOD}entra: {{ca_file: {named}}}\napi: {{ca_file: {named}}}\n")
    refused = []
    for content in (None, b"", b"garbage", b"\xff"):
        if content is not None:
            named.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            watch.look()
        refused.append([str(fault) for fault in error.value.faults])
        watch.refused = None
    named.write_bytes(trustme.CA().cert_pem.bytes())

    expected = (
        "expected certificates of authorities, PEM: texts from -----BEGIN CERTIFICATE----- to its end, "
        "complete"
    )
    assert [
        [f"{key}.ca_file: {named}: {cause}" for key in ("entra", "api")]
        for cause in ("No such file or directory", f"is empty: {expected}", expected, expected)
    ] == refused
    assert watch.look() is not None


def test_files_of_the_door_are_opened_as_well(file: Path) -> None:
    """Certificate, key and authorities of clients, each with its key in the configuration."""
    (folder := file.parent / "tls").mkdir()
    for name in ("crt", "key", "ca"):
        (folder / name).write_text("garbage")
    tls = {"certificate_file": "crt", "key_file": "key", "client_ca_file": "ca"}
    lines = [f"    {key}: {folder / name}" for key, name in tls.items()]
    file.write_text("\n".join([GOOD, "listen:", "  grpc: 127.0.0.1:1", "  tls:", *lines, ""]))
    with pytest.raises(ConfigError) as error:
        ConfigWatch(ConfigSource(file, {}))

    assert [f"listen.tls.{key}" for key in tls] == [fault.path for fault in error.value.faults]


def test_a_key_of_another_certificate_is_a_fault(file: Path) -> None:
    """Each file is good by itself; the pair is not, until both are of one certificate."""
    (folder := file.parent / "tls").mkdir()
    authority = trustme.CA()
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    one.cert_chain_pems[0].write_to_path(folder / "crt")
    other.private_key_pem.write_to_path(folder / "key")
    lines = [f"    {key}_file: {folder / name}" for key, name in _PAIR.items()]
    file.write_text("\n".join([GOOD, "listen:", "  grpc: 127.0.0.1:1", "  tls:", *lines, ""]))
    with pytest.raises(ConfigError) as error:
        ConfigWatch(ConfigSource(file, {}))
    one.private_key_pem.write_to_path(folder / "key")
    config = ConfigWatch(ConfigSource(file, {})).current.config

    cause = f"{folder / 'key'}: is not the key of listen.tls.certificate_file"
    assert [f"listen.tls.key_file: {cause}"] == [str(fault) for fault in error.value.faults]
    assert {f"listen.tls.{key}_file": None for key in _PAIR} == NamedFiles().look(config)


@pytest.mark.parametrize("kind", ["gone", "a pipe", "too large", "garbage"])
def test_a_named_file_that_becomes_unusable_is_found_and_so_is_its_return(
    file: Path, kind: str
) -> None:
    """While the version that names it is in use."""
    named = file.with_name("ca.pem")
    named.write_bytes(good := trustme.CA().cert_pem.bytes())
    file.write_text(f"{GOOD}entra: {{ca_file: {named}}}\n")
    config, files = ConfigWatch(ConfigSource(file, {})).current.config, NamedFiles()
    before = files.look(config)
    named.unlink()
    match kind:
        case "a pipe":
            os.mkfifo(named)
        case "too large":
            named.write_bytes(b"x" * (4 * 1024**2 + 1))
        case "garbage":
            named.write_bytes(b"garbage")
    meanwhile = files.look(config)
    named.unlink(missing_ok=True)
    named.write_bytes(good)

    cause = {
        "gone": "No such file or directory",
        "a pipe": "is no regular file",
        "too large": "exceeds 4194304 bytes",
        "garbage": "expected certificates of authorities, PEM",
    }[kind]
    (fault,) = meanwhile.values()
    assert {"entra.ca_file": None} == before == files.look(config)
    assert fault is not None
    # What is expected is said at more length.
    assert fault.startswith(f"{named}: {cause}")


def test_files_that_no_version_names_any_more_are_forgotten(file: Path) -> None:
    """Else each renewal under another name would stay in memory."""
    files = NamedFiles()
    for name in ("old.pem", "new.pem"):
        (named := file.with_name(name)).write_bytes(trustme.CA().cert_pem.bytes())
        file.write_text(f"{GOOD}entra: {{ca_file: {named}}}\n")
        files.look(ConfigWatch(ConfigSource(file, {})).current.config)

    paths = {str(one) for one in held(files) if isinstance(one, Path)}
    assert {str(file.with_name("new.pem"))} == paths


def test_a_tenant_whose_id_was_found_out_is_a_new_version() -> None:
    """The environment is the same; what its domain name means is not."""
    environ = {
        "AzureAd__TenantId": "contoso.example",
        "AzureAd__ClientId": "22222222-2222-4222-8222-222222222222",
    }
    source = ConfigSource(None, environ)
    watch = ConfigWatch(source)
    before = watch.look()

    source.tenants["contoso.example"] = "11111111-1111-4111-8111-111111111111"
    found = watch.look()

    assert (None, "contoso.example") == (before, watch.current.tenant_name)
    assert found is not None
    assert None is found.tenant_name
    assert ("11111111-1111-4111-8111-111111111111",) == found.config.inbound["default"].tenants
