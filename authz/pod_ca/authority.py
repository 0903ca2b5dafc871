"""`PodAuthority`: signs certificates for the hosts of egress routes, and can sign for no others.

The key never leaves the pod, and a client that trusts the authority trusts it for these names only (RFC 5280
section 4.2.1.10). Where key and certificate are kept is `files`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Final, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.core.secret import Secret

LIFETIME: Final = timedelta(days=365)
"""Of the authority. An app reads whom it trusts once, so it is as old as a pod may become."""
BACKDATE: Final = timedelta(days=30)
"""How far a clock that was ahead at the start may be set back later: an app refuses what is not yet valid."""
_NAME: Final = "authz, for this pod only"
_EVERY_ADDRESS: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate for one host.

    Attributes:
        chain: PEM.
        key: PEM.
        expires_at: Epoch seconds.
    """

    chain: str
    key: Secret
    expires_at: float


class PodAuthority:
    """An authority with its key. Made by `create` or `load`."""

    def __init__(self, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        self.hosts = frozenset(
            cast("str", name.value) for name in constraints.permitted_subtrees or ()
        )
        """The only names it can vouch for."""

    @classmethod
    def create(cls, hosts: Collection[str], *, now: float) -> Self:
        """Make an authority for these DNS names."""
        key = generate_private_key(SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
        made = datetime.fromtimestamp(now, UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(made - BACKDATE)
            .not_valid_after(made + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.NameConstraints(
                    permitted_subtrees=[x509.DNSName(host) for host in sorted(hosts)],
                    excluded_subtrees=[x509.IPAddress(each) for each in _EVERY_ADDRESS],
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, pem: bytes) -> Self:
        """Read what `dump` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            key = load_pem_private_key(pem, None)
            certificate = x509.load_pem_x509_certificate(pem)
            if not isinstance(key, EllipticCurvePrivateKey):
                raise ValueError("another kind of key")  # noqa: TRY004 - a fault of the content
            if key.public_key() != certificate.public_key():
                raise ValueError("the key of another certificate")
            return cls(certificate, key)
        except (TypeError, x509.ExtensionNotFound) as error:
            raise ValueError("no authority of a pod") from error

    def dump(self) -> Secret:
        """Return key and certificate, PEM."""
        return Secret(_pem_of(self._key) + self.pem)

    @property
    def pem(self) -> str:
        """The certificate alone: what the app trusts."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    def remaining(self, now: float) -> float:
        """Return the seconds until its certificate ends."""
        return self._certificate.not_valid_after_utc.timestamp() - now

    def issue(self, host: str, *, now: float, lifetime: float) -> IssuedCertificate:
        """Return a certificate for a host, with a key of its own.

        Raises:
            ValueError: The authority cannot vouch for the host.
        """
        if host not in self.hosts:
            raise ValueError(f"the authority is not for {host}")
        key = generate_private_key(SECP256R1())
        begin = datetime.fromtimestamp(now, UTC) - BACKDATE
        end = min(
            datetime.fromtimestamp(now + lifetime, UTC), self._certificate.not_valid_after_utc
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        chain = certificate.public_bytes(Encoding.PEM).decode()
        return IssuedCertificate(chain, Secret(_pem_of(key)), end.timestamp())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(key: EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
