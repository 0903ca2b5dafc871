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
        self.current = source.load()
        self.refused: str | None = None
        """Faults of the newest version, if that is not the one in use."""
        self._met = self.current.digest

    def look(self) -> Loaded | None:
        """Return a new version, if there is one; the caller applies it and sets `current`.

        Raises:
            ConfigError: There is a new version, and it has faults. Raised once for each.
        """
        try:
            if self.source.digest() == self._met:
                self.refused = None
                return None
            loaded = self.source.load()
        except ConfigError as error:
            if str(error) == self.refused:
                return None
            self.refused = str(error)
            raise
        self.refused, self._met = None, loaded.digest
        return loaded
