"""`ConfigWatch`: notices new versions of the configuration, and remembers why one was refused."""

from authz.config.faults import ConfigError
from authz.config.source import ConfigSource, Loaded


class ConfigWatch:
    """The version in use, and an eye on its source.

    Args:
        source: Where the configuration comes from.

    Raises:
        ConfigError: The first version has faults: there is nothing to go on with.
    """

    def __init__(self, source: ConfigSource) -> None:
        self.source = source
        self.current = source.load(to_serve=True)
        self.refused: str | None = None
        """Faults of the newest version, if that is not the one in use."""
        self._met: str | None = self.current.digest

    def look(self) -> Loaded | None:
        """Return a new version, if there is one, for the caller to `adopt` or to `refuse`.

        Raises:
            ConfigError: There is a new version, and it has faults. Raised once for each.
        """
        try:
            if self.source.digest() == self._met:
                self.refused = None
                return None
            return self.source.load(to_serve=True)
        except ConfigError as error:
            if self.refuse(str(error)):
                raise
            return None

    def look_again(self) -> None:
        """Have the next look load the version in use once more: files that it names have changed."""
        self._met = None

    def adopt(self, version: Loaded) -> None:
        """Take note that a version is in use from now on."""
        self.current, self.refused, self._met = version, None, version.digest

    def refuse(self, reason: str) -> bool:
        """Take note of why the newest version is not in use; return whether that is news.

        It is looked at again each time: what it needs may be there by then.
        """
        is_news = reason != self.refused
        self.refused = reason
        return is_news
