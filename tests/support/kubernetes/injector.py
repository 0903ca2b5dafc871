"""`Injector`: `authz inject-webhook` as a program on loopback, and an API server that asks it.

The webhook's configuration is the shipped one for namespaces of its own, so that several can stand beside
one another, and with an address in place of the Service, which needs the network of a cluster. Or else the
Service stays, and is another name of this machine.
"""

import base64
import ssl
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

import httpx
import trustme
from cryptography import x509

from authz.injection.annotations import INJECTED
from authz.injection.pod import LABEL, WANTED
from authz.injection.webhook import PATH
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import KUBERNETES, render
from support.programs.stack import Process

_CONFIGURATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class Injector:
    """One webhook, as a context manager.

    Args:
        server: Who asks it.
        folder: For its certificate and key.
        options: Further options of `authz inject-webhook`.
        by_service: Whether it is known by its Service, with the port of the program.

    Attributes:
        labels: Of the namespaces that it is for.
    """

    def __init__(
        self, server: ApiServer, folder: Path, *options: str, by_service: bool = False
    ) -> None:
        name = uuid4().hex[:8]
        self.server = server
        self.certificate, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        self.labels = {f"test/{name}": "yes"}
        self._name = f"authz-injector-{name}"
        self._authority = trustme.CA()
        self._options = options
        self._by_service = by_service
        self._objects = render(KUBERNETES / "injector")

    def __enter__(self) -> Self:
        self.renew()
        files = ("--certificate", str(self.certificate), "--key", str(self.key))
        listen = ("--listen", "127.0.0.1:0")
        self.process = Process("inject-webhook", *listen, *files, *self._options)
        try:
            self.address = self.process.event("serving")["listen"]
            self._configure()
        except BaseException:
            self.process.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.server.http.delete(f"{_CONFIGURATIONS}/{self._name}")
        if self._by_service:
            service = self._objects.find("Service")["metadata"]
            self.server.http.delete(f"{_services(service['namespace'])}/{service['name']}")
        self.process.close()

    def renew(self) -> None:
        """Put another certificate of the same authority where the first one is."""
        (name,) = self._objects.find("Certificate", "authz-injector")["spec"]["dnsNames"]
        issued = self._authority.issue_cert(*([name] if self._by_service else ["127.0.0.1"]))
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def shown_certificate(self) -> x509.Certificate:
        """Return the certificate that a new connection is shown."""
        pem = ssl.get_server_certificate(("127.0.0.1", self._port), timeout=10)
        return x509.load_pem_x509_certificate(pem.encode())

    def namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """Return a new namespace that it is for."""
        return self.server.namespace({**self.labels, **(labels or {})})

    def _configure(self) -> None:
        item = self._objects.find("MutatingWebhookConfiguration")
        (webhook,) = deepcopy(item["webhooks"])
        webhook["namespaceSelector"]["matchLabels"] = self.labels
        if self._by_service:
            webhook["clientConfig"]["service"]["port"] = self._port
            self._make_service()
        else:
            webhook["clientConfig"] = {"url": f"https://{self.address}{PATH}"}
        authority = base64.b64encode(self._authority.cert_pem.bytes()).decode()
        webhook["clientConfig"]["caBundle"] = authority
        configuration = {**item, "metadata": {"name": self._name}, "webhooks": [webhook]}
        made = self.server.post(_CONFIGURATIONS, configuration)
        assert made.status_code == httpx.codes.CREATED, made.text
        # It counts a moment after it is stored.
        namespace = self.namespace()
        self.server.wait(lambda: self._is_asked(namespace))

    @property
    def _port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def _make_service(self) -> None:
        metadata = self._objects.find("Service")["metadata"]
        self.server.post("/api/v1/namespaces", self._objects.find("Namespace"))
        spec = {"type": "ExternalName", "externalName": "localhost"}
        service = {"metadata": {"name": metadata["name"]}, "spec": spec}
        made = self.server.post(_services(metadata["namespace"]), service)
        assert made.status_code == httpx.codes.CREATED, made.text

    def _is_asked(self, namespace: str) -> bool:
        metadata = {"name": "probe", "labels": {LABEL: WANTED}}
        security = {"capabilities": {"drop": ["ALL"]}}
        probe = {"name": "probe", "image": "probe:1", "securityContext": security}
        pod = {"metadata": metadata, "spec": {"containers": [probe]}}
        made = self.server.post(f"/api/v1/namespaces/{namespace}/pods", pod, dryRun="All")
        return INJECTED in made.json()["metadata"].get("annotations", {})


def _services(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"
