"""Forms of texts that come in by more than one way: ids, scopes, headers. Patterns of addresses are not here.

Each is a regular expression in the dialect that Python and JSON Schema share, for the whole of a text.
"""

from typing import Final

GUID: Final = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
"""An id of Entra's, in letters of either case."""
USER_PRINCIPAL_NAME: Final = r"[^\s@]+@[^\s@]+"
SCOPE: Final = r"[!#-\[\]-~]+"
"""One scope (RFC 6749 section 3.3: `scope-token`)."""
HEADER_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""A header's name, or that of a challenge's scheme or parameter (RFC 9110 section 5.6.2: `token`)."""
HEADER_VALUE: Final = "(?:[!-~](?:[ -~]*[!-~])?)?"
"""What every client and server reads alike: printable ASCII, without blanks around it; or nothing."""
