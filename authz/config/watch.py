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
        # Counted, so that nothing is missed that happens while a version is being read or applied.
        self._wishes = self._read = self._granted = 0

    def look(self) -> Loaded | None:
        """Return a new version, if there is one, for the caller to `adopt` or to `refuse`.

        Raises:
            ConfigError: There is a new version, and it has faults. Raised once for each.
        """
        try:
            wishes = self._wishes
            if self.source.digest() == self.current.digest and wishes == self._granted:
                self.refused = None
                return None
            loaded = self.source.load(to_serve=True)
        except ConfigError as error:
            if self.refuse(str(error)):
                raise
            return None
        self._read = wishes
        return loaded

    def look_again(self) -> None:
        """Have the next look load the version in use once more: files that it names have changed."""
        self._wishes += 1

    def adopt(self, version: Loaded) -> None:
        """Take note that a version is in use from now on."""
        self.current, self.refused, self._granted = version, None, self._read

    def refuse(self, reason: str) -> bool:
        """Take note of why the newest version is not in use; return whether that is news.

        It is looked at again each time: what it needs may be there by then.
        """
        is_news = reason != self.refused
        self.refused = reason
        return is_news
