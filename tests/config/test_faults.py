"""Every kind of fault: where it is reported, what it says was found, what it says was expected."""

from typing import Any

import pytest

from authz.config.faults import ConfigError, Fault
from authz.config.reading.document import parse
from config.samples import AGENT, APP, BASE, CLIENT, DELETED, TENANT, changed, faults_of, load_data

OTHER = "99999999-0000-4000-8000-000000000009"
TLS = {"certificate_file": "/tls.crt", "key_file": "/tls.key"}
GRAPH = "https://graph.microsoft.com/.default"

CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    # Values.
    "unknown key with a close one": (
        {"listen.grcp": "x"},
        "listen.grcp",
        "unknown key; did you mean 'grpc'?",
    ),
    "unknown key with no close one": (
        {"inbound.chat.zzz": 1},
        "inbound.chat.zzz",
        (
            "unknown key; expected one of agent, blueprint, application, audiences, tenants, scopes, "
            "roles, user_roles, actors, actor_blueprints, auth_context, subjects, forward, resource, prefetch, mcp, rules, "
            "public_paths, cors, leeway"
        ),
    ),
    "unknown section": ({"egres": {}}, "egres", "unknown key; did you mean 'egress'?"),
    "missing key": (
        {"agents.assistant.blueprint": DELETED},
        "agents.assistant.blueprint",
        "is missing",
    ),
    "section is no mapping": ({"limits": 5}, "limits", "found 5: expected a mapping"),
    "entry is no mapping": (
        {"agents.x": ["a"]},
        "agents.x",
        "found a list: expected a mapping, NAME: VALUE, with no - before it",
    ),
    "entry is nothing": ({"agents.x": None}, "agents.x", "found nothing: expected a mapping"),
    "text for a list": (
        {"inbound.chat.scopes": "a b"},
        "inbound.chat.scopes",
        "found 'a b': expected a list, in brackets or with - before each entry",
    ),
    "nothing for a list": (
        {"inbound.chat.scopes": None},
        "inbound.chat.scopes",
        "found nothing: expected a list",
    ),
    "empty list": (
        {"blueprints.support.audiences": []},
        "blueprints.support.audiences",
        "found an empty list: expected at least one entry",
    ),
    "no GUID": (
        {"blueprints.support.tenant_id": "common"},
        "blueprints.support.tenant_id",
        (
            "found 'common': expected a GUID such as 11111111-2222-3333-4444-555555555555: a tenant by its id, "
            "which `az account show --query tenantId` prints"
        ),
    ),
    "wildcard tenant": (
        {"inbound.chat.tenants": ["*"]},
        "inbound.chat.tenants.0",
        "found '*': expected a GUID such as 11111111-2222-3333-4444-555555555555",
    ),
    "wildcard audience": (
        {"inbound.chat.audiences": ["*"]},
        "inbound.chat.audiences.0",
        "found '*': expected an audience: a client id or URI, without wildcard",
    ),
    "bad name": (
        {"agents.my agent": BASE["agents"]["assistant"]},
        "agents.my agent",
        "found 'my agent': expected a name of at most 64 letters, digits, '.', '_' and '-'",
    ),
    "bad duration": (
        {"entra.timeout": "1d"},
        "entra.timeout",
        (
            "found '1d': expected a duration such as 30s, 5m, 1h or 250ms, or a number of seconds, "
            "from 100ms to 5m"
        ),
    ),
    "duration out of bounds": (
        {"inbound.chat.leeway": 301},
        "inbound.chat.leeway",
        (
            "found 301: expected a duration such as 30s, 5m, 1h or 250ms, or a number of seconds, "
            "from 0s to 5m"
        ),
    ),
    "switch for a duration": (
        {"reload_interval": True},
        "reload_interval",
        (
            "found true: expected a duration such as 30s, 5m, 1h or 250ms, or a number of seconds, "
            "from 0s to 1h"
        ),
    ),
    "bad size": (
        {"limits.max_token_bytes": "16kb"},
        "limits.max_token_bytes",
        (
            "found '16kb': expected a size such as 16KiB, 64MiB or 1GiB, or a number of bytes, "
            "from 1024 to 1048576"
        ),
    ),
    "bad number": (
        {"limits.exchanges": 0},
        "limits.exchanges",
        "found 0: expected a whole number from 1 to 1024",
    ),
    "bad choice": (
        {"log.level": "loud"},
        "log.level",
        "found 'loud': expected 'debug', 'info', 'warning' or 'error'",
    ),
    "bad socket mode": (
        {"listen.socket_mode": "0777"},
        "listen.socket_mode",
        "found '0777': expected '0600' or '0660'",
    ),
    "bad address": (
        {"listen.grpc": "9901"},
        "listen.grpc",
        (
            "found '9901': expected an address: host:port or unix:/PATH, with the host before the port, such as "
            "127.0.0.1:9901"
        ),
    ),
    "bad port": (
        {"listen.admin": "127.0.0.1:65536"},
        "listen.admin",
        "found '127.0.0.1:65536': expected a port from 0 to 65535",
    ),
    "long socket path": (
        {"listen.grpc": "unix:/" + "a" * 107},
        "listen.grpc",
        f"found 'unix:/{'a' * 53}…': expected a socket path of at most 107 bytes",
    ),
    "api without a port": (
        {"listen.api": "127.0.0.1"},
        "listen.api",
        (
            "found '127.0.0.1': expected an address: host:port or unix:/PATH, with the port after the host, such "
            "as 127.0.0.1:9901"
        ),
    ),
    "api with workers": (
        {"listen": {"grpc": "127.0.0.1:0", "api": "127.0.0.1:5000", "workers": 2}},
        "listen.api",
        "found it with 2 workers: expected listen.workers 1, or another process for the API",
    ),
    "api with two entrances": (
        {"listen.api": "127.0.0.1:5000", "inbound.other": {"blueprint": "support"}},
        "listen.inbound_route",
        "is missing: callers of listen.api are verified by one inbound route",
    ),
    "an API elsewhere than at a URL": (
        {"egress.graph.downstream": {"base_url": "https://user@api.example/?x"}},
        "egress.graph.downstream.base_url",
        (
            "found 'https://…@api.example/?…': expected a URL with scheme and host, without user, "
            "query and fragment"
        ),
    ),
    "https without a socket": (
        {
            "listen.grpc": "127.0.0.1:9901",
            "https": {"ca_file": "/a", "key_file": "/b"},
        },
        "https",
        "is for the Envoy of the same pod: expected listen.grpc on a Unix socket",
    ),
    "https for nobody": (
        {
            "egress.graph.hosts": ["*", "10.0.0.1", "[fd00::1]"],
            "https": {"ca_file": "/a", "key_file": "/b"},
        },
        "https",
        "has nothing to vouch for: expected egress hosts by their DNS names",
    ),
    "a network with bits behind it": (
        {"api.peers": ["10.1.2.3/16"]},
        "api.peers.0",
        "found '10.1.2.3/16': expected a network such as 10.1.0.0/16, without bits behind it",
    ),
    "authority with tenant": (
        {"entra.authority": f"https://login.microsoftonline.com/{TENANT}"},
        "entra.authority",
        (
            f"found 'https://login.microsoftonline.com/{TENANT[:25]}…': expected an https URL without "
            "tenant or path, such as https://login.microsoftonline.com"
        ),
    ),
    "authority of External ID": (
        {"entra.authority": "https://contoso.ciamlogin.com"},
        "entra.authority",
        (
            "found 'https://contoso.ciamlogin.com': expected the login endpoint of Microsoft Entra ID: "
            "contoso.ciamlogin.com belongs to Microsoft Entra External ID, which has no agent identities, and "
            "whose tokens name issuers other than this endpoint's"
        ),
    ),
    "authority of Azure AD B2C": (
        {"entra.authority": "https://Contoso.B2CLogin.com:443/"},
        "entra.authority",
        (
            "found 'https://…:443/': expected the login endpoint of Microsoft Entra ID: "
            "contoso.b2clogin.com belongs to Azure AD B2C, which has no agent identities, and "
            "whose tokens name issuers other than this endpoint's"
        ),
    ),
    "proxy with credentials": (
        {"entra.proxy": "http://user:word@proxy.internal:3128"},
        "entra.proxy",
        ("expected an http URL with a port and no credentials, such as http://proxy.internal:3128"),
    ),
    "authority without TLS": (
        {"entra.authority": "http://localhost"},
        "entra.authority",
        (
            "found 'http://localhost': expected an https URL without tenant or path, such as "
            "https://login.microsoftonline.com"
        ),
    ),
    "bad agent user": (
        {"agents.assistant.agent_user": "mailbot"},
        "agents.assistant.agent_user",
        "found 'mailbot': expected a GUID such as 11111111-2222-3333-4444-555555555555",
    ),
    "agent user named twice": (
        {"agents.assistant.agent_user": {"username": "a@b", "object_id": AGENT}},
        "agents.assistant.agent_user",
        (
            "found a mapping: expected a user principal name, an object id, or one of username and "
            "object_id"
        ),
    ),
    "bad SPIFFE id": (
        {"agents.assistant.workloads": ["spiffe://cluster.local"]},
        "agents.assistant.workloads.0",
        (
            "found 'spiffe://cluster.local': expected a SPIFFE id such as "
            "spiffe://cluster.local/ns/default/sa/agent"
        ),
    ),
    "two forwards in one header": (
        {"inbound.chat.forward": ["bearer", "placeholder"]},
        "inbound.chat.forward",
        "found a list: expected one of bearer, strip and placeholder, which share one header",
    ),
    "forward twice": (
        {"inbound.chat.forward": ["handle", "handle"]},
        "inbound.chat.forward",
        "found a list: expected each only once",
    ),
    "forward of nothing": (
        {"inbound.chat.forward": []},
        "inbound.chat.forward",
        (
            "found an empty list: expected one of bearer, strip, placeholder, handle, or a list of some"
        ),
    ),
    "bad forward": (
        {"inbound.chat.forward": "drop"},
        "inbound.chat.forward",
        "found 'drop': expected one of bearer, strip, placeholder, handle, or a list of some",
    ),
    "bad subject kind": (
        {"inbound.chat.subjects": ["users"]},
        "inbound.chat.subjects.0",
        "found 'users': expected 'user', 'application', 'agent_identity' or 'agent_user'",
    ),
    "demand by nothing": (
        {"inbound.chat.scopes": {}},
        "inbound.chat.scopes",
        "found an empty mapping: expected any, all or both",
    ),
    "demand of another form": (
        {"inbound.chat.scopes": {"any": ["a"], "none": ["b"]}},
        "inbound.chat.scopes.none",
        "unknown key; expected one of any, all",
    ),
    "demand of none": (
        {"inbound.chat.user_roles": {"any": []}},
        "inbound.chat.user_roles.any",
        "found an empty list: expected at least one entry",
    ),
    "demand by a text": (
        {"inbound.chat.user_roles": {"all": "Approver"}},
        "inbound.chat.user_roles.all",
        "found 'Approver': expected a list, in brackets or with - before each entry",
    ),
    "demand of no role": (
        {"egress.graph.requires": {"user_roles": {"all": ["Approver", "Head of sales"]}}},
        "egress.graph.requires.user_roles.all.1",
        "found 'Head of sales': expected the value of an app role, no blanks",
    ),
    "required scope with its resource": (
        {"egress.graph.requires": {"scopes": {"all": ["api://x/access_agent"]}}},
        "egress.graph.requires.scopes.all.0",
        (
            "found 'api://x/access_agent': expected the part after the last slash, because tokens have a scope "
            "without its resource"
        ),
    ),
    "no authentication context": (
        {"inbound.chat.auth_context": "c100"},
        "inbound.chat.auth_context",
        "found 'c100': expected the id of an authentication context, from c1 to c99",
    ),
    "authentication context zero": (
        {"egress.graph.requires": {"auth_context": "c0"}},
        "egress.graph.requires.auth_context",
        "found 'c0': expected the id of an authentication context, from c1 to c99",
    ),
    "no blueprint": (
        {"inbound.chat.actor_blueprints": ["support"]},
        "inbound.chat.actor_blueprints.0",
        "found 'support': expected a GUID such as 11111111-2222-3333-4444-555555555555",
    ),
    "host with path": (
        {"egress.graph.hosts": ["https://graph.microsoft.com/v1.0"]},
        "egress.graph.hosts.0",
        "found 'https://graph.microsoft.com/v1.0': expected no path: 'https://graph.microsoft.com'",
    ),
    "host with another scheme": (
        {"egress.graph.hosts": ["grpc://graph.microsoft.com"]},
        "egress.graph.hosts.0",
        (
            "found 'grpc://graph.microsoft.com': expected a host without path: host, host:port, "
            "*.suffix or *, with http:// before it where it has no TLS"
        ),
    ),
    "token over plain HTTP": (
        {"egress.graph.hosts": ["graph.microsoft.com", "http://orders.svc:8080"]},
        "egress.graph.hosts.1",
        (
            "found 'http://orders.svc:8080', where anybody on the network could read the token of flow "
            "on_behalf_of: expected https, or `token_over_plain_http: true`"
        ),
    ),
    "token over plain HTTP to anywhere": (
        {"egress.graph.hosts": ["http://*.svc"], "egress.graph.token_over_plain_http": True},
        "egress.graph.hosts.0",
        (
            "found 'http://*.svc', where nothing proves a host that only a request names: expected hosts by "
            "name, https://, or flow none instead of on_behalf_of"
        ),
    ),
    "token over plain HTTP by a call of our own": (
        {"egress.graph.downstream": {"base_url": "http://orders.svc:8080/v1"}},
        "egress.graph.downstream.base_url",
        (
            "found 'http://orders.svc:8080', where anybody on the network could read the token of flow "
            "on_behalf_of: expected https, or `token_over_plain_http: true`"
        ),
    ),
    "token over plain HTTP without such a host": (
        {"egress.graph.token_over_plain_http": True},
        "egress.graph.token_over_plain_http",
        "has no effect: no host has http://",
    ),
    "token over plain HTTP of flow none": (
        {"egress.tools": {"flow": "none", "hosts": ["http://a"], "token_over_plain_http": True}},
        "egress.tools.token_over_plain_http",
        "does not go with flow none, which gives no token",
    ),
    "host of both schemes": (
        {"egress.tools": {"flow": "none", "hosts": ["http://a", "a"]}},
        "egress.tools.hosts.1",
        "found 'a', which egress.tools.hosts.0 has already as 'http://a': expected each host once",
    ),
    "host of both schemes by its port": (
        {"egress.tools": {"flow": "none", "hosts": ["a:80", "http://b:80", "https://b:443"]}},
        "egress.tools.hosts.2",
        "found 'b', which egress.tools.hosts.1 has already as 'http://b': expected each host once",
    ),
    "host of both schemes by other names": (
        {"egress.tools": {"flow": "none", "hosts": ["http://graph.microsoft.com:80"]}},
        "egress.tools.hosts.0",
        (
            "found 'http://graph.microsoft.com', which egress.graph.hosts.0 has already as "
            "'graph.microsoft.com': expected each host once"
        ),
    ),
    "host twice by the default port": (
        {"egress.tools": {"flow": "none", "hosts": ["a:443", "A"]}},
        "egress.tools.hosts.1",
        "found 'a', which egress.tools.hosts.0 has already: expected each host once",
    ),
    "host without TLS beside TLS on its port": (
        {"egress.tools": {"flow": "none", "hosts": ["http://a", "a:80"]}},
        "egress.tools.hosts.1",
        (
            "found 'a:80', and egress.tools.hosts.0 is 'http://a': a request for a:80 means both, "
            "expected one of them"
        ),
    ),
    "accepted scope with its resource": (
        {"inbound.chat.scopes": ["read", "api://x/access_agent"]},
        "inbound.chat.scopes.1",
        (
            "found 'api://x/access_agent': expected the part after the last slash, because tokens have a scope "
            "without its resource"
        ),
    ),
    "host with TLS beside none on its port": (
        {
            "egress.tools": {"flow": "none", "hosts": ["http://a:443"]},
            "egress.others": {"flow": "none", "hosts": ["a"]},
        },
        "egress.others.hosts.0",
        (
            "found 'a', and egress.tools.hosts.0 is 'http://a:443': a request for a:443 means both, "
            "expected one of them"
        ),
    ),
    "host with TLS on two ports that requests do not tell apart": (
        {"egress.tools": {"flow": "none", "hosts": ["a", "a:80"]}},
        "egress.tools.hosts.1",
        (
            "found 'a:80', and egress.tools.hosts.0 is 'a': a request for a:80 means both, expected one of them"
        ),
    ),
    "wildcards of both schemes": (
        {"egress.tools": {"flow": "none", "hosts": ["*.a", "http://*.A"]}},
        "egress.tools.hosts.1",
        "found 'http://*.a', which egress.tools.hosts.0 has already as '*.a': expected each host once",
    ),
    "scheme in capitals": (
        {"egress.graph.hosts": ["HTTPS://graph.microsoft.com"]},
        "egress.graph.hosts.0",
        (
            "found 'HTTPS://graph.microsoft.com': expected the scheme in lower case: "
            "'https://graph.microsoft.com'"
        ),
    ),
    "host with several slips": (
        {"egress.graph.hosts": ["Http://Orders.example.:08080/v1?x"]},
        "egress.graph.hosts.0",
        (
            "found 'Http://Orders.example.:08080/v1?…': expected the scheme in lower case and no path and the "
            "port without leading zeros and no dot at the end: 'http://Orders.example:8080'"
        ),
    ),
    "host with a user": (
        {"egress.graph.hosts": ["HTTPS://user:word@graph.microsoft.com"]},
        "egress.graph.hosts.0",
        (
            "found 'HTTPS://…@graph.microsoft.com': expected a host without path: host, host:port, *.suffix or "
            "*, with http:// before it where it has no TLS"
        ),
    ),
    "port with zeros before it": (
        {"egress.tools": {"flow": "none", "hosts": ["x:8000", "x:08000"]}},
        "egress.tools.hosts.1",
        "found 'x:08000': expected the port without leading zeros: 'x:8000'",
    ),
    "port of zeros": (
        {"egress.graph.hosts": ["x:00"]},
        "egress.graph.hosts.0",
        "found 'x:00': expected a port from 1 to 65535",
    ),
    "colon without a port": (
        {"egress.graph.hosts": ["x:"]},
        "egress.graph.hosts.0",
        "found 'x:': expected no colon without a port: 'x'",
    ),
    "dot at the end of a host": (
        {"egress.graph.hosts": ["x.example."]},
        "egress.graph.hosts.0",
        "found 'x.example.': expected no dot at the end: 'x.example'",
    ),
    "host in another script": (
        {"egress.graph.hosts": ["bücher.example:8443"]},
        "egress.graph.hosts.0",
        (
            "found 'bücher.example:8443': expected the name as DNS has it, in ASCII: "
            "'xn--bcher-kva.example:8443'"
        ),
    ),
    "host whose name two standards write differently": (
        {"egress.graph.hosts": ["straße.example"]},
        "egress.graph.hosts.0",
        (
            "found 'straße.example': expected the name as DNS has it, in ASCII: parts with other letters begin "
            "with xn--"
        ),
    ),
    "IPv6 address in a long form": (
        {"egress.graph.hosts": ["[FD00:0:0:0:0:0:0:1]:8443"]},
        "egress.graph.hosts.0",
        (
            "found '[FD00:0:0:0:0:0:0:1]:8443': expected the IPv6 address in its short form (RFC 5952): "
            "'[fd00::1]:8443'"
        ),
    ),
    "IPv6 address without brackets": (
        {"egress.graph.hosts": ["fd00::1"]},
        "egress.graph.hosts.0",
        "found 'fd00::1': expected brackets around the IPv6 address: '[fd00::1]'",
    ),
    "no IPv6 address between brackets": (
        {"egress.graph.hosts": ["[1.2.3.4]"]},
        "egress.graph.hosts.0",
        "found '[1.2.3.4]': expected an IPv6 address between the brackets",
    ),
    "IPv4 address in IPv6": (
        {"egress.graph.hosts": ["http://[::ffff:127.0.0.1]:8000"]},
        "egress.graph.hosts.0",
        (
            "found 'http://[::ffff:127.0.0.1]:8000': expected the IPv4 address itself: "
            "'http://127.0.0.1:8000'"
        ),
    ),
    "wildcard host with port": (
        {"egress.graph.hosts": ["*.internal:8443"]},
        "egress.graph.hosts.0",
        (
            "found '*.internal:8443': expected no port after a wildcard, which means the scheme's own port: name "
            "a host on another port by itself, such as orders.example:8443"
        ),
    ),
    "bad host port": (
        {"egress.graph.hosts": ["api:70000"]},
        "egress.graph.hosts.0",
        "found 'api:70000': expected a port from 1 to 65535",
    ),
    "scope with blanks": (
        {"egress.graph.scopes": ["a b"]},
        "egress.graph.scopes.0",
        "found 'a b': expected one scope without blanks (RFC 6749 section 3.3)",
    ),
    "bad flow": (
        {"egress.graph.flow": "agent_assertion"},
        "egress.graph.flow",
        (
            "found 'agent_assertion': expected one of on_behalf_of, autonomous, agent_user, blueprint, "
            "app_on_behalf_of, app, none"
        ),
    ),
    "claims that are no object": (
        {"egress.graph.claims": "[1]"},
        "egress.graph.claims",
        "found '[1]': expected a JSON object, as text or as a mapping",
    ),
    "bad subject": (
        {"egress.graph.subject": ["bearer", "cookie"]},
        "egress.graph.subject.1",
        "found 'cookie': expected 'bearer', 'placeholder', 'handle' or 'none'",
    ),
    "subject that nobody gives": (
        {"egress.graph.subject": ["bearer", "handle"]},
        "egress.graph.subject.1",
        (
            "found handle, which no inbound route gives that calls the same client: expected handle in "
            "its forward"
        ),
    ),
    "subject that only another agent's callers are given": (
        {
            "agents.other": {"blueprint": "support", "agent_identity": OTHER},
            "inbound.other": {"agent": "other", "forward": "handle"},
            "egress.graph.subject": ["handle"],
        },
        "egress.graph.subject.0",
        (
            "found handle, which no inbound route gives that calls the same client: expected handle in "
            "its forward"
        ),
    ),
    "subject twice": (
        {"egress.graph.subject": ["bearer", "bearer"]},
        "egress.graph.subject.1",
        "found bearer twice: expected each only once",
    ),
    "none before others": (
        {"egress.graph.subject": ["none", "bearer"]},
        "egress.graph.subject.0",
        "found none before others: expected it at the end",
    ),
    "none alone": (
        {"egress.graph.subject": ["none"]},
        "egress.graph.subject",
        (
            "found none alone, which never looks for a user: expected flow autonomous or app, or other "
            "sources before it"
        ),
    ),
    "none, of which resource": (
        {"egress.graph.subject": ["bearer", "none"], "egress.graph.scopes": ["User.Read"]},
        "egress.graph.subject",
        (
            "found none, and a scope without its resource: expected scopes such as "
            "https://graph.microsoft.com/User.Read, to know what to ask /.default of"
        ),
    ),
    "references among workers": (
        {
            "listen.grpc": "127.0.0.1:9191",
            "listen.workers": 2,
            "inbound.chat.forward": "handle",
        },
        "listen.workers",
        (
            "found 2, and forward gives references, which only the process that gave them knows: "
            "expected 1"
        ),
    ),
    "owners of sessions among workers": (
        {
            "listen.grpc": "127.0.0.1:9191",
            "listen.workers": 2,
            "inbound.chat.mcp": {"bind_sessions": True},
            "inbound.chat.rules": [{"tools": ["search"]}],
        },
        "listen.workers",
        (
            "found 2, and mcp.bind_sessions remembers callers, whom only the process that saw them knows: expected 1"
        ),
    ),
    # Credentials.
    "no credentials": (
        {"blueprints.support.credentials": DELETED},
        "blueprints.support.credentials",
        "is missing",
    ),
    "secret in place": (
        {"blueprints.support.credentials.0": {"client_secret": "hunter2"}},
        "blueprints.support.credentials.0.client_secret",
        "a secret is never written here: expected {file: PATH} or {env: NAME}",
    ),
    "two sources of a secret": (
        {"blueprints.support.credentials.0": {"client_secret": {"file": "/a", "env": "B"}}},
        "blueprints.support.credentials.0.client_secret",
        "expected one of file and env; the secret itself is never written here",
    ),
    "no source of a certificate": (
        {"blueprints.support.credentials.0": {"certificate": {"send_x5c": True}}},
        "blueprints.support.credentials.0.certificate",
        "expected one of file and env",
    ),
    "two passwords": (
        {
            "blueprints.support.credentials.0": {
                "certificate": {"file": "/a", "password_file": "/b", "password_env": "C"}
            }
        },
        "blueprints.support.credentials.0.certificate",
        "expected at most one of password_file and password_env",
    ),
    "bad switch": (
        {"blueprints.support.credentials.0": {"certificate": {"file": "/a", "send_x5c": "si"}}},
        "blueprints.support.credentials.0.certificate.send_x5c",
        "expected true or false",
    ),
    "federated token without file": (
        {"blueprints.support.credentials.0": {"federated_token": None}},
        "blueprints.support.credentials.0.federated_token.file",
        "is missing",
    ),
    "vault with a path": (
        {
            "blueprints.support.credentials.0": {
                "key_vault": {"url": "https://v.vault.azure.net/certificates/a", "certificate": "a"}
            }
        },
        "blueprints.support.credentials.0.key_vault.url",
        ("expected the https URL of a vault without path, such as https://NAME.vault.azure.net"),
    ),
    "vault with a user": (
        {
            "blueprints.support.credentials.0": {
                "key_vault": {"url": "https://a@v.vault.azure.net", "certificate": "a"}
            }
        },
        "blueprints.support.credentials.0.key_vault.url",
        ("expected the https URL of a vault without path, such as https://NAME.vault.azure.net"),
    ),
    "vault without TLS": (
        {
            "blueprints.support.credentials.0": {
                "key_vault": {"url": "http://v.vault.azure.net", "certificate": "a"}
            }
        },
        "blueprints.support.credentials.0.key_vault.url",
        ("expected the https URL of a vault without path, such as https://NAME.vault.azure.net"),
    ),
    "vault's certificate by its version": (
        {
            "blueprints.support.credentials.0": {
                "key_vault": {"url": "https://v.vault.azure.net", "certificate": "a/b"}
            }
        },
        "blueprints.support.credentials.0.key_vault.certificate",
        "expected a name of at most 127 letters, digits and '-'",
    ),
    "vault without certificate": (
        {"blueprints.support.credentials.0": {"key_vault": {"url": "https://v.vault.azure.net"}}},
        "blueprints.support.credentials.0.key_vault.certificate",
        "is missing",
    ),
    "unknown credential": (
        {"blueprints.support.credentials.0": {"password": {}}},
        "blueprints.support.credentials.0",
        (
            "expected a mapping with one key, one of client_secret, certificate, key_vault, "
            "federated_token, managed_identity"
        ),
    ),
    "unknown credential key": (
        {"blueprints.support.credentials.0": {"client_secret": {"fil": "/a"}}},
        "blueprints.support.credentials.0.client_secret",
        "unknown key; did you mean 'file'?",
    ),
    # Rules that concern several keys.
    "prefetch of an unknown route": (
        {"inbound.chat.prefetch": ["grahp"]},
        "inbound.chat.prefetch.0",
        "found 'grahp', which is not among egress; did you mean 'graph'?",
    ),
    "prefetch of one route twice": (
        {"inbound.chat.prefetch": ["graph", "graph"]},
        "inbound.chat.prefetch.1",
        "found 'graph' twice: expected each route once",
    ),
    "prefetch without a token": (
        {"inbound.chat.prefetch": ["none"], "egress.none": {"flow": "none"}},
        "inbound.chat.prefetch.0",
        "found 'none', whose flow none gives no token",
    ),
    "prefetch of what the agent cannot ask for": (
        {"inbound.chat.prefetch": ["graph"], "inbound.chat.forward": "strip"},
        "inbound.chat.prefetch.0",
        (
            "found 'graph', whose subject is bearer, and forward is strip: the agent will not have it"
        ),
    ),
    "no routes": (
        {"inbound": DELETED, "egress": DELETED},
        "",
        "no route is configured: expected inbound or egress routes",
    ),
    "TLS on a Unix socket": (
        {"listen.tls": TLS},
        "listen.tls",
        "a Unix socket has no TLS: leave it out, or listen on host:port",
    ),
    "workers on a Unix socket": (
        {"listen.workers": 2},
        "listen.workers",
        (
            "found 2 with a Unix socket, which only one process can serve: expected 1, or grpc on "
            "host:port"
        ),
    ),
    "a socket for Checks beside a port": (
        {"listen.grpc": "127.0.0.1:9901", "listen.checks": "unix:/run/checks.sock"},
        "listen.checks",
        "is for the Envoy of the same pod: expected listen.grpc on a Unix socket",
    ),
    "one socket for Checks and all else": (
        {"listen.grpc": "unix:/run/one.sock", "listen.checks": "unix:/run/one.sock"},
        "listen.checks",
        "found the socket of listen.grpc: expected another path",
    ),
    "a port for Checks": (
        {"listen.checks": "127.0.0.1:9903"},
        "listen.checks",
        "found '127.0.0.1:9903': expected the address of a Unix socket: unix:/PATH",
    ),
    "a socket of no file": (
        {"listen.checks": "unix:@abstract"},
        "listen.checks",
        "found '…@abstract': expected the address of a Unix socket: unix:/PATH",
    ),
    "a socket relative to wherever": (
        {"listen.grpc": "unix:authz.sock"},
        "listen.grpc",
        "found 'unix:authz.sock': expected an address: host:port or unix:/PATH, with an absolute path",
    ),
    "a socket in another spelling": (
        {"listen.grpc": "unix:/run//authz.sock"},
        "listen.grpc",
        "found 'unix:/run//authz.sock': expected the path as /run/authz.sock",
    ),
    "a socket in the spelling of URIs": (
        {"listen.grpc": "unix:///run/authz.sock"},
        "listen.grpc",
        "found 'unix:///run/authz.sock': expected the path as /run/authz.sock",
    ),
    "a socket with two slashes": (
        {"listen.grpc": "unix://run/authz.sock"},
        "listen.grpc",
        "found 'unix://run/authz.sock': expected the path as /run/authz.sock",
    ),
    "a socket that is a folder": (
        {"listen.grpc": "unix:/run/authz/"},
        "listen.grpc",
        "found 'unix:/run/authz/': expected the path as /run/authz",
    ),
    "group mode without group": (
        {"listen.socket_mode": "0660"},
        "listen.socket_group",
        "is missing: socket_mode 0660 admits a group",
    ),
    "group without group mode": (
        {"listen.socket_group": "envoy"},
        "listen.socket_group",
        "has no effect: set socket_mode to 0660 as well",
    ),
    "socket mode of a port": (
        {"listen.grpc": "127.0.0.1:9901", "listen.socket_mode": "0600"},
        "listen.socket_mode",
        "is for a Unix socket, and grpc is host:port",
    ),
    "connect timeout": (
        {"entra.connect_timeout": "20s"},
        "entra.connect_timeout",
        "found 20s, more than timeout (10s) leaves room for",
    ),
    "timeout": (
        {"entra.timeout": "20s"},
        "entra.timeout",
        "found 20s, more than exchange_timeout (15s) leaves room for",
    ),
    "deadline margin": (
        {"limits.deadline_margin": "1s", "limits.check_timeout": 1},
        "limits.deadline_margin",
        "found 1s, more than check_timeout (1s) leaves room for",
    ),
    "unknown inbound route": (
        {"listen.inbound_route": "chad"},
        "listen.inbound_route",
        "found 'chad', which is not among inbound; did you mean 'chat'?",
    ),
    "unknown blueprint": (
        {"agents.assistant.blueprint": "suport"},
        "agents.assistant.blueprint",
        "found 'suport', which is not among blueprints; did you mean 'support'?",
    ),
    "unknown agent": (
        {"egress.graph.agent": "x"},
        "egress.graph.agent",
        "found 'x', which is not among agents",
    ),
    "same client, other credentials": (
        {"applications.portal.client_id": CLIENT},
        "applications.portal.credentials",
        (
            "differ from those of blueprints.support, which is the same client: expected the same "
            "list in both"
        ),
    ),
    "same agent, other blueprint": (
        {
            "blueprints.sales": {**BASE["blueprints"]["support"], "client_id": OTHER},
            "agents.again": {"blueprint": "sales", "agent_identity": AGENT},
        },
        "agents.again.blueprint",
        (
            "found 'sales', but agents.assistant is the same agent identity and has 'support': "
            "an agent identity belongs to one blueprint"
        ),
    ),
    "workloads nobody can prove": (
        {"agents.assistant.workloads": ["spiffe://a/b"]},
        "agents.assistant.workloads",
        (
            "no workload could prove itself: expected listen.tls.client_ca_file, or "
            "listen.workload_identity: source_principal"
        ),
    ),
    "users of a tenant that no exchange is for": (
        {"inbound.chat.tenants": [TENANT, APP]},
        "inbound.chat.tenants.1",
        f"found {APP}, whose users every delegated egress route would refuse: expected {TENANT}",
    ),
    "an audience that no exchange takes": (
        {"inbound.chat.audiences": ["api://other"]},
        "inbound.chat.audiences.0",
        (
            "found api://other, whose users every delegated egress route would refuse: expected "
            f"{CLIENT} or api://{CLIENT}"
        ),
    ),
    "an audience that another client's exchange takes": (
        {
            "inbound.portal": {"application": "portal", "audiences": [CLIENT]},
            "inbound.chat.forward": ["handle"],
            "egress.graph.subject": ["handle"],
            "egress.portal": {
                "flow": "app_on_behalf_of",
                "application": "portal",
                "scopes": ["api://x/Read"],
            },
        },
        "inbound.portal.audiences.0",
        (
            f"found {CLIENT}, whose users every delegated egress route would refuse: expected {APP} or "
            f"api://{APP}"
        ),
    ),
    "a client capability that nobody acts on": (
        {"egress.graph.claims": {"access_token": {"xms_cc": {"values": ["cp1"]}}}},
        "egress.graph.claims",
        (
            "found a mapping: expected no xms_cc: the client capability cp1 promises that a token which an API refuses is "
            "replaced at once, and Envoy cannot ask for that"
        ),
    ),
    "two clients called": (
        {"inbound.chat.blueprint": "support"},
        "inbound.chat.blueprint",
        "agent is given as well: expected one of the two",
    ),
    "no audiences": (
        {"inbound.chat": {"tenants": [TENANT]}},
        "inbound.chat.audiences",
        (
            "is missing: expected it, or one of agent, blueprint and application, from which it "
            "follows"
        ),
    ),
    "no tenants": (
        {"inbound.chat": {"audiences": [CLIENT]}},
        "inbound.chat.tenants",
        (
            "is missing: expected it, or one of agent, blueprint and application, from which it "
            "follows"
        ),
    ),
    "applications without roles": (
        {"inbound.chat.subjects": ["user", "application"]},
        "inbound.chat.subjects",
        (
            "applications are served without roles or actors: any application can get a token without "
            "roles, so expected one of the two"
        ),
    ),
    "applications bound to a blueprint": (
        {
            "inbound.chat.subjects": ["application", "agent_identity"],
            "inbound.chat.scopes": DELETED,
            "inbound.chat.actor_blueprints": [CLIENT],
        },
        "inbound.chat.subjects",
        (
            "applications are served without roles or actors: any application can get a token without "
            "roles, so expected one of the two"
        ),
    ),
    "agent identities without roles": (
        {"inbound.chat.subjects": ["agent_identity"], "inbound.chat.scopes": DELETED},
        "inbound.chat.subjects",
        (
            "agent identities are served without roles, actors or actor_blueprints: any agent can get a "
            "token without roles, so expected one of the three"
        ),
    ),
    "roles of users twice": (
        {
            "inbound.chat.roles": ["R"],
            "inbound.chat.user_roles": ["R"],
            "inbound.chat.subjects": ["user", "agent_user"],
        },
        "inbound.chat.user_roles",
        (
            "roles is given as well, and counts for users where no application is served: expected one of "
            "the two"
        ),
    ),
    "roles of users without users": (
        {
            "inbound.chat": {
                "agent": "assistant",
                "roles": ["R"],
                "user_roles": ["R"],
                "subjects": ["application"],
            }
        },
        "inbound.chat.user_roles",
        "have no effect: subjects names no user",
    ),
    "authentication context without users": (
        {
            "inbound.chat": {
                "agent": "assistant",
                "roles": ["R"],
                "auth_context": "c1",
                "subjects": ["agent_identity"],
            }
        },
        "inbound.chat.auth_context",
        "has no effect: subjects names no user",
    ),
    "scopes without users": (
        {"inbound.chat.roles": ["R"], "inbound.chat.subjects": ["application"]},
        "inbound.chat.scopes",
        "have no effect: subjects names no user",
    ),
    "host twice": (
        {"egress.again": {"flow": "none", "hosts": ["Graph.Microsoft.com"]}},
        "egress.again.hosts.0",
        (
            "found 'graph.microsoft.com', which egress.graph.hosts.0 has already: expected each host once"
        ),
    ),
    "client of another flow": (
        {"egress.graph.flow": "app"},
        "egress.graph.agent",
        "does not go with flow app: expected application or blueprint",
    ),
    "client of no flow": (
        {"egress.graph.flow": "none", "egress.graph.scopes": DELETED},
        "egress.graph.agent",
        "does not go with flow none: expected no client at all",
    ),
    "flow without client": (
        {"egress.graph.agent": DELETED},
        "egress.graph.agent",
        "is missing: flow on_behalf_of needs it",
    ),
    "two clients of a flow": (
        {
            "egress.graph": {
                "flow": "app",
                "application": "portal",
                "blueprint": "support",
                "scopes": [GRAPH],
            }
        },
        "egress.graph.application",
        "blueprint is given as well: expected one of the two",
    ),
    "agent without user": (
        {"egress.graph.flow": "agent_user"},
        "egress.graph.agent",
        "found 'assistant', which has no agent_user: flow agent_user needs one",
    ),
    "workloads of an agent route": (
        {
            "egress.graph.workloads": ["spiffe://a/b"],
            "listen.workload_identity": "source_principal",
        },
        "egress.graph.workloads",
        "does not go with flow on_behalf_of: expected it at the agent",
    ),
    "workloads of no flow": (
        {
            "egress.graph": {"flow": "none", "workloads": ["spiffe://a/b"]},
            "listen.workload_identity": "source_principal",
        },
        "egress.graph.workloads",
        "does not go with flow none, which gives no token",
    ),
    "scopes of no flow": (
        {"egress.graph": {"flow": "none", "scopes": ["a"]}},
        "egress.graph.scopes",
        "does not go with flow none, which gives no token",
    ),
    "claims of no flow": (
        {"egress.graph": {"flow": "none", "claims": {}}},
        "egress.graph.claims",
        "does not go with flow none, which gives no token",
    ),
    "flow without scopes": (
        {"egress.graph.scopes": DELETED},
        "egress.graph.scopes",
        "is missing: flow on_behalf_of needs at least one scope",
    ),
    "reserved scope": (
        {"egress.graph.scopes": ["User.Read", "offline_access"]},
        "egress.graph.scopes.1",
        "found 'offline_access', which is added where it is needed",
    ),
    "two resources": (
        {"egress.graph.scopes": ["User.Read", "api://x/Read"]},
        "egress.graph.scopes",
        "found scopes of api://x and https://graph.microsoft.com: expected one resource",
    ),
    "default scope beside others": (
        {"egress.graph.scopes": ["User.Read", GRAPH]},
        "egress.graph.scopes",
        f"found '{GRAPH}' beside others: expected it alone, or the others",
    ),
    "app-only flow with a delegated scope": (
        {"egress.graph.flow": "autonomous", "egress.graph.scopes": ["api://x/Read"]},
        "egress.graph.scopes",
        "found 1 (api://x/Read): flow autonomous takes exactly one scope, which ends in /.default",
    ),
    "app-only flow with two scopes": (
        {"egress.graph.flow": "autonomous", "egress.graph.scopes": [GRAPH, "User.Read"]},
        "egress.graph.scopes",
        (
            f"found 2 ({GRAPH}, User.Read): flow autonomous takes exactly one scope, which ends in "
            "/.default"
        ),
    ),
    "token ahead of its user": (
        {"egress.graph.push": True},
        "egress.graph.push",
        "does not go with flow on_behalf_of, whose token depends on the request's user",
    ),
    "token of a user kept on checks": (
        {"egress.graph.push": False},
        "egress.graph.push",
        "does not go with flow on_behalf_of, whose token depends on the request's user",
    ),
    "no token ahead": (
        {"egress.graph": {"flow": "none", "push": True}},
        "egress.graph.push",
        "does not go with flow none, which gives no token",
    ),
    "push that is no switch": (
        {"egress.graph.flow": "autonomous", "egress.graph.push": "maybe"},
        "egress.graph.push",
        "found 'maybe': expected true or false",
    ),
    "demands on nobody": (
        {"egress.graph.flow": "autonomous", "egress.graph.requires": {"scopes": ["a"]}},
        "egress.graph.requires",
        "does not go with flow autonomous, which looks at no user's token",
    ),
    "leeway for nobody": (
        {"egress.graph.flow": "autonomous", "egress.graph.leeway": "5s"},
        "egress.graph.leeway",
        "does not go with flow autonomous, which looks at no user's token",
    ),
    "subject of nobody": (
        {"egress.graph.flow": "autonomous", "egress.graph.subject": ["bearer"]},
        "egress.graph.subject",
        "does not go with flow autonomous, which looks at no user's token",
    ),
}


@pytest.mark.parametrize(("changes", "path", "message"), CASES.values(), ids=CASES.keys())
def test_a_fault_names_its_place_and_what_was_expected(
    changes: dict[str, Any], path: str, message: str
) -> None:
    """One wrong thing gives one fault, at the key that should change."""
    faults = faults_of(lambda: load_data(changed(changes)))
    assert [(path, message)] == [(fault.path, fault.message) for fault in faults]


YAML_CASES: dict[str, tuple[str, Fault]] = {
    "syntax": (
        "listen: {\n  grpc: ]",
        Fault("", "not valid YAML: did not find expected node content", 2),
    ),
    "tab": (
        "listen:\n\tgrpc: x",
        Fault(
            "",
            "not valid YAML: found character that cannot start any token: expected spaces, found a tab",
            2,
        ),
    ),
    "reference in brackets": (
        "listen:\n  grpc: [${ADDRESS}]",
        Fault(
            "",
            "not valid YAML: did not find expected ',' or ']': expected quotes around a reference "
            'inside of brackets, ["${NAME}"]',
            2,
        ),
    ),
    "control character": (
        "a: \x01",
        Fault("", "not valid YAML: control characters are not allowed"),
    ),
    "no mapping": (
        "- a",
        Fault("", "found a list: expected a mapping, NAME: VALUE, with no - before it", 1),
    ),
    "text": ("hello", Fault("", "found 'hello': expected a mapping", 1)),
    "empty": ("", Fault("", "found nothing: expected a mapping")),
    "several documents": ("a: 1\n---\nb: 2", Fault("", "found several documents: expected one", 2)),
    "key that is a list": (
        "inbound:\n  [a]: 1",
        Fault(
            "inbound",
            "found a key that is no text: fill in a template such as {{ NAME }} first, and put quotes around a "
            "text that begins with { or [",
            2,
        ),
    ),
    "too deep": ("a: " + "[" * 40, Fault("a" + ".0" * 30, "is nested too deeply", 1)),
    "duplicate key": (
        "log: {level: info}\nlog: {level: debug}",
        Fault("log", "is a duplicate key: line 1 has it already", 2),
    ),
    "alias": (
        "log: {level: *x}",
        Fault("log.level", "found an alias: expected the value itself", 1),
    ),
    "anchor": (
        "log:\n  level: &x info",
        Fault("log.level", "found an anchor (&): expected the value written out each time", 2),
    ),
    "tag": (
        "log: {level: !!python/name:os.system }",
        Fault("log.level", "found a tag (!): expected a plain value", 1),
    ),
    "binary": (
        "log: {level: !!binary aW5mbw==}",
        Fault("log.level", "found a tag (!): expected a plain value", 1),
    ),
    "reference not set": (
        "log:\n  level: ${LEVEL}",
        Fault("log.level", "environment variable LEVEL is not set: expected a value in it", 2),
    ),
    "reference empty": (
        "log: {level: '${EMPTY}'}",
        Fault("log.level", "environment variable EMPTY is empty: expected a value in it", 1),
    ),
    "reference inside": (
        "log: {level: 'x${LEVEL}'}",
        Fault(
            "log.level",
            "found a reference inside of a value: expected ${NAME} alone, with the whole value in the "
            "variable",
            1,
        ),
    ),
    "reference to a bad value": (
        "log:\n  level: ${PATH}",
        Fault(
            "log.level",
            "found the value of ${PATH}: expected 'debug', 'info', 'warning' or 'error'",
            2,
        ),
    ),
}


@pytest.mark.parametrize(("text", "fault"), YAML_CASES.values(), ids=YAML_CASES.keys())
def test_what_yaml_may_not_hold_is_a_fault_with_its_line(text: str, fault: Fault) -> None:
    """Syntax errors, and the parts of YAML that are not read, are faults of one kind with the rest."""
    environ = {"EMPTY": "", "PATH": "/bin"}
    assert fault in faults_of(lambda: parse(text, environ))


def test_all_faults_are_reported_at_once_in_the_order_of_lines() -> None:
    """A typing error in one entry hides neither other values nor rules that concern other keys."""
    text = f"""\
listen: {{grpc: 5, inbound_route: chad}}
blueprints:
  support: {{tenant_id: x, client_id: {CLIENT}, credentials: [managed_identity: ]}}
  support: {{}}
agents:
  assistant: {{blueprint: support, agent_identity: "${{UNSET}}"}}
  other: {{blueprint: suport, agent_identity: {AGENT}}}
inbound:
  chat: {{agent: assistant, unknown: 1}}
egress:
  a: {{flow: none, hosts: [x]}}
  b: {{flow: none, hosts: [x]}}
  c: {{flow: app, application: portal}}
"""
    assert [
        ("listen.grpc", 1),
        ("listen.inbound_route", 1),
        ("blueprints.support.tenant_id", 3),
        ("blueprints.support", 4),
        ("agents.assistant.agent_identity", 6),
        ("agents.other.blueprint", 7),
        ("inbound.chat.unknown", 9),
        ("egress.b.hosts.0", 12),
        ("egress.c.application", 13),
        ("egress.c.scopes", 13),
    ] == [(fault.path, fault.line) for fault in faults_of(lambda: parse(text, {}))]


def test_an_entry_with_a_fault_still_counts_as_declared() -> None:
    """What leads to a faulty entry is not reported as leading nowhere."""
    faults = faults_of(lambda: load_data(changed({"blueprints.support.tenant_id": "x"})))
    assert ["blueprints.support.tenant_id"] == [fault.path for fault in faults]


def test_a_section_that_is_no_mapping_does_not_make_its_names_unknown() -> None:
    """Nothing is known about the names of such a section, so nothing is said of them."""
    faults = faults_of(lambda: load_data(changed({"blueprints": "x"})))
    assert ["blueprints"] == [fault.path for fault in faults]


def test_a_faulty_listener_does_not_make_workloads_unprovable() -> None:
    """The client authorities are in the section that was left out."""
    changes = {
        "listen": {"grpc": "0.0.0.0:1", "tls": {**TLS, "client_ca_file": "/ca"}, "workers": 0},
        "agents.assistant.workloads": ["spiffe://a/b"],
    }
    faults = faults_of(lambda: load_data(changed(changes)))
    assert ["listen.workers"] == [fault.path for fault in faults]


def test_an_error_shows_every_fault_with_path_and_line() -> None:
    """What `authz check-config` prints."""
    error = ConfigError([Fault("a.b", "is missing", 3), Fault("", "is odd"), Fault("", "is odd")])
    expected = "the configuration has 2 faults:\n  a.b (line 3): is missing\n  document: is odd"
    assert expected == str(error)


def test_thousands_of_unknown_names_are_reported_without_guessing() -> None:
    """Suggestions stop where comparing everything with everything would take minutes."""
    routes = {f"r{n}": {"agent": f"b{n}"} for n in range(300)}
    agents = {
        f"a{n}": {"blueprint": "support", "agent_identity": f"{AGENT[:-4]}{n:04}"}
        for n in range(300)
    }
    faults = faults_of(
        lambda: load_data(changed({"inbound": routes, "agents": agents, "egress": {}}))
    )
    assert "found 'b0', which is not among agents" == faults[0].message
    assert 300 == len(faults)


def test_a_users_token_may_be_for_any_route_that_takes_it_as_it_came() -> None:
    """One app may call as its agent and as an ordinary application: one inbound route serves both."""
    app_route = {
        "flow": "app_on_behalf_of",
        "application": "portal",
        "scopes": ["api://x/Read"],
    }
    changes = {"inbound.chat.audiences": [CLIENT, APP], "egress.portal": app_route}

    assert (CLIENT, APP) == load_data(changed(changes)).inbound["chat"].audiences


def test_the_base_of_these_tests_is_valid() -> None:
    """Each case above changes one thing only."""
    assert APP == load_data(BASE).applications["portal"].client_id


def test_a_section_whose_name_is_misspelled_hides_none_of_its_faults() -> None:
    """Both are found in one go, by the name that stands in the document; a good section has one fault."""
    data = {**BASE, "egres": {"x": {"flow": "bogus"}}}
    data.pop("egress")
    found = {fault.path: fault.message for fault in faults_of(lambda: load_data(data))}
    good = {**BASE, "egres": BASE["egress"]}
    good.pop("egress")

    assert {"egres", "egres.x.flow"} == found.keys()
    assert "unknown key; did you mean 'egress'?" == found["egres"]
    assert found["egres.x.flow"].startswith("found 'bogus'")
    assert ["egres"] == [fault.path for fault in faults_of(lambda: load_data(good))]


def test_a_misspelled_section_beside_the_right_one_is_one_fault() -> None:
    """Which of the two was meant nobody knows."""
    data = {**BASE, "egres": {"x": {"flow": "bogus"}}}
    found = faults_of(lambda: load_data(data))

    assert ["egres"] == [fault.path for fault in found]
