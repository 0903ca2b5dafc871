"""Headers by which some servers and frameworks take a request for another method or another path.

Rules are about what the destination will do. So a request on a route with rules has none of these, or is
refused.
"""

from typing import Final

from authz.core.header_name import spellings

OTHER_METHODS: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers by which some frameworks serve another method than the request line has."""
OTHER_PATHS: Final = ("x-original-url", "x-rewrite-url")
"""The same for another path."""

OTHER_VARIABLES: Final = ("script-name", "path-info", "http-method-override")
"""The same by what CGI, and WSGI after it, makes of their names."""
SESSION: Final = "mcp-session-id"
UNLIKE: Final = tuple(
    spelling for name in ("mcp-method", "mcp-name", SESSION) for spelling in spellings(name)[1:]
)
"""What some servers read as headers of MCP, and nobody looks at."""

OVERRIDING: Final = frozenset(
    spelling
    for name in (*OTHER_METHODS, *OTHER_PATHS, *OTHER_VARIABLES)
    for spelling in spellings(name)
) | frozenset(UNLIKE)
"""All of them, in each spelling that a server may read as the same name."""
