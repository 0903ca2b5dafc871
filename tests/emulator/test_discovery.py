"""Metadata, key sets, key rollover and the TLS the emulator serves them with."""

from __future__ import annotations

import socket
import ssl

import jwt
import pytest
import requests

from authz_dev.emulator import Emulator
from emulator.scene import Scene, trusting


def metadata(scene: Scene, tenant: str, version: str = "/v2.0") -> dict[str, str]:
    """A tenant's OpenID Connect metadata."""
    url = f"{scene.emulator.authority}/{tenant}{version}/.well-known/openid-configuration"
    document: dict[str, str] = scene.session.get(url).json()
    return document


def test_v2_metadata_names_the_tenants_endpoints(scene: Scene) -> None:
    """C.1: issuer, keys and token endpoint."""
    base = f"{scene.emulator.authority}/{scene.tenant_id}"
    document = metadata(scene, scene.tenant_id)
    assert document["issuer"] == f"{base}/v2.0"
    assert document["jwks_uri"] == f"{base}/discovery/v2.0/keys"
    assert document["token_endpoint"] == f"{base}/oauth2/v2.0/token"


def test_v1_metadata_names_the_v1_issuer(scene: Scene) -> None:
    """C.2: the issuer of v1 tokens, with its slash, and keys bound to it."""
    document = metadata(scene, scene.tenant_id, version="")
    assert document["issuer"] == f"https://sts.windows.net/{scene.tenant_id}/"
    [key] = scene.session.get(document["jwks_uri"]).json()["keys"]
    assert key["issuer"] == document["issuer"]


def test_a_verified_domain_leads_to_the_same_issuer(scene: Scene) -> None:
    """A tenant may be addressed by domain; its issuer holds the GUID."""
    by_domain = metadata(scene, "contoso.example")
    assert by_domain["issuer"] == metadata(scene, scene.tenant_id)["issuer"]


@pytest.mark.parametrize("name", ["common", "organizations"])
def test_shared_endpoints_have_a_template_issuer(scene: Scene, name: str) -> None:
    """C.1: the literal `{tenantid}`, in the metadata and at each key."""
    document = metadata(scene, name)
    assert document["issuer"] == f"{scene.emulator.authority}/{{tenantid}}/v2.0"
    [key] = scene.session.get(document["jwks_uri"]).json()["keys"]
    assert key["issuer"] == document["issuer"]


def test_an_unknown_tenant_has_no_metadata(scene: Scene) -> None:
    """90002 with status 400."""
    url = f"{scene.emulator.authority}/nobody.example/v2.0/.well-known/openid-configuration"
    response = scene.session.get(url)
    assert (response.status_code, response.json()["error_codes"]) == (400, [90002])


def test_tokens_verify_with_the_published_key(scene: Scene) -> None:
    """The key set is what PyJWT needs; v1 headers repeat the key id as `x5t`."""
    document = metadata(scene, scene.tenant_id)
    keys = scene.session.get(document["jwks_uri"]).json()
    assert {"kty", "use", "kid", "x5t", "n", "e", "x5c", "issuer"} == keys["keys"][0].keys()
    key = jwt.PyJWKSet.from_dict(keys).keys[0]
    token = scene.user_token()
    claims = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience=scene.blueprint["client_id"],
        issuer=document["issuer"],
    )
    assert claims["scp"] == "access_agent"
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "RS256", "kid": key.key_id}
    v1 = jwt.get_unverified_header(scene.user_token(version=1))
    assert v1["x5t"] == v1["kid"] == key.key_id


def published(scene: Scene) -> list[str]:
    """The key ids in the key set."""
    url = metadata(scene, scene.tenant_id)["jwks_uri"]
    return [key["kid"] for key in scene.session.get(url).json()["keys"]]


def test_a_rolled_key_signs_while_the_old_one_stays_valid(fresh_scene: Scene) -> None:
    """Planned rollover: both keys are published, tokens of both are taken."""
    [first] = published(fresh_scene)
    t1 = fresh_scene.t1()
    fresh_scene.emulator.roll_signing_key()
    assert jwt.get_unverified_header(fresh_scene.t1())["kid"] == published(fresh_scene)[0]
    assert published(fresh_scene)[1] == first
    assert fresh_scene.as_agent(client_assertion=t1).status_code == 200


def test_a_withdrawn_key_validates_nothing(fresh_scene: Scene) -> None:
    """Emergency rollover: the old key is gone, and so are its tokens."""
    [first] = published(fresh_scene)
    t1, user_token = fresh_scene.t1(), fresh_scene.user_token()
    fresh_scene.emulator.roll_signing_key(withdraw_old=True)
    assert first not in published(fresh_scene)
    assert fresh_scene.as_agent(client_assertion=t1).json()["error_codes"] == [7000274]
    assert fresh_scene.on_behalf_of(user_token).json()["error_codes"] == [50013]


def test_instance_discovery_knows_its_own_authority_only(scene: Scene) -> None:
    """Known authorities lead to their metadata, others are invalid."""
    url = f"{scene.emulator.authority}/common/discovery/instance"
    endpoint = f"{scene.emulator.authority}/{scene.tenant_id}/oauth2/v2.0/authorize"
    found = scene.session.get(url, params={"authorization_endpoint": endpoint}).json()
    assert found["tenant_discovery_endpoint"].startswith(
        f"{scene.emulator.authority}/{scene.tenant_id}/v2.0/"
    )
    endpoint = "https://elsewhere.example/x/oauth2/v2.0/authorize"
    refused = scene.session.get(url, params={"authorization_endpoint": endpoint})
    assert refused.json()["error"] == "invalid_instance"


def test_the_certificate_covers_further_names() -> None:
    """`names` and localhost are in the certificate; another name is not."""
    with Emulator(names=["login.entra.example"]) as emulator:
        port = int(emulator.authority.rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(emulator.ca_file))
        for name in ("login.entra.example", "localhost"):
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname=name) as secured,
            ):
                assert secured.version() == "TLSv1.3"
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(plain, server_hostname="other.example")


def test_plain_http_is_not_served(scene: Scene) -> None:
    """Entra has no http."""
    with pytest.raises(requests.ConnectionError):
        scene.session.get(scene.emulator.authority.replace("https", "http"), timeout=5)


def test_a_stopped_emulator_resumes_where_it_was() -> None:
    """An outage: the same port, keys and directory afterwards."""
    emulator = Emulator()
    emulator.start()
    with trusting(emulator) as session:
        scene = Scene(emulator, session)
        t1 = scene.t1()
        emulator.stop()
        with pytest.raises(requests.ConnectionError):
            scene.as_blueprint()
        emulator.start()
        assert scene.as_agent(client_assertion=t1).status_code == 200
    emulator.stop()


def test_a_seed_repeats_the_directory() -> None:
    """The same seed gives the same ids and secrets; without one they are fresh."""
    with Emulator(seed=7) as one, Emulator(seed=7) as two, Emulator() as three:
        assert one.describe()["tenants"] == two.describe()["tenants"]
        assert one.describe()["tenants"] != three.describe()["tenants"]
