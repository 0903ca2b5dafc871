"""The program: `authz`, and `python -m authz`. What each verb does is in `authz.cli`."""

import sys

from authz.system import early_signals


def run() -> None:
    """Run the verb that the command line names."""
    if sys.argv[1:2] in (["serve"], ["inject-webhook"]):
        # These are PID 1 of a container, and all that follows takes time to import.
        early_signals.heed()
    from authz.cli import main  # noqa: PLC0415 - see above

    main()


if __name__ == "__main__":
    run()
