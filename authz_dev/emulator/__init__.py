"""A strict local Microsoft Entra with Agent ID, for development, the demo and tests.

`Emulator` serves it in-process; `authz emulator` (`command`) as a program. It speaks TLS only, with
a CA of its own, and unmodified MSAL clients accept it (`instance_discovery=False`). It refuses what
Entra refuses, with Entra's numbers. All state is in memory. In `authz` only the command
line imports this package, and it imports nothing of `authz`.

Entra's own endpoints, below `authority`:

    /{tenant}/oauth2/v2.0/token                        every leg of Agent ID, OBO and app-only
    /{tenant}/oauth2/v2.0/authorize                    people sign in: authorization code with PKCE
    /{tenant}/oauth2/v2.0/devicecode, /common/oauth2/deviceauth    and for a device (`sign_in`)
    /{tenant}/v2.0/.well-known/openid-configuration    v2 issuer; without /v2.0 the v1 issuer
    /{tenant}/discovery/v2.0/keys                      keys bound to the v2 issuer; ditto
    /common/discovery/instance                         instance discovery
    /v1.0/, /v1.0/me..., /v1.0/servicePrincipals..., /v1.0/whoami    a sliver of Microsoft Graph
    /v1.0/applications..., /v1.0/oauth2PermissionGrants   what makes blueprints and agents (`provisioning`)

Endpoints of the emulator itself, below `control_url`. Bodies are JSON; a wrong one is answered with
400 and a problem document whose `field` names the member at fault:

    POST   /mint             {"tenant_id", "user", "audience", "scopes", "client_id", "claims",
                             "version", "lifetime", "header", "key", "alg"}, all optional
                             (`Emulator.mint_user_token`) -> {"access_token"}
    GET    /calls            {leg: count..., "rejected", "total"}; see `calls.LEGS`
    POST   /calls/reset      zero (also DELETE /calls)
    GET    /faults           the faults in force
    POST   /faults           {"kind", "target": "token" | "discovery" | "jwks" | "graph",
                             "match": {"leg", "tenant", "client_id", "user"}, "count", ...}
                             -> 201 and the fault with its "id"; members per kind: `faults.Fault`
    DELETE /faults[/{id}]    end all, or one
    POST   /keys/roll        {"withdraw_old": bool} -> {"kid"}
    POST   /secrets/roll     {"tenant_id", "client_id", "withdraw_old": bool} -> {"client_secret"}
    POST   /users/{name}     {"tenant_id", "disabled", "mfa_required", "revoke_sessions": bool};
                             name is a UPN or object id
    POST   /consent          {"tenant_id", "client_id", "resource", "scopes": [...],
                             "user": UPN | object id | null for all principals, "granted": bool}
    GET    /graph            claims of the tokens Graph was called with (DELETE forgets them)
"""

from authz_dev.emulator.calls import Calls
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.faults import Fault, Faults, Match
from authz_dev.emulator.mint import MintError
from authz_dev.emulator.population import default_directory
from authz_dev.emulator.service import Emulator

__all__ = [
    "Calls",
    "Directory",
    "Emulator",
    "Fault",
    "Faults",
    "Match",
    "MintError",
    "default_directory",
]
