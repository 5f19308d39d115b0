"""The `nicemu` command: thin, one file per command. Only commands that compute import numba."""

import sys


def main() -> None:
    """Run the command line and exit: 2 and one line on stderr for bad input."""
    from nicemu.cli.app import app
    from nicemu.config.errors import ConfigError

    try:
        app(prog_name="nicemu")
    except ConfigError as error:
        print(f"nicemu: error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: no message about it either
        sys.exit(141)
