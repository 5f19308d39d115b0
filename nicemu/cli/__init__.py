"""The `nicemu` command: thin, one file per command. Only commands that compute import numba."""

import sys


def main() -> None:
    """Run the command line and exit: 2 and one line on stderr for bad input."""
    from nicemu.cli.app import app
    from nicemu.config.errors import ConfigError

    try:
        sys.exit(app(prog_name="nicemu", standalone_mode=False))
    except ConfigError as error:
        _refuse(str(error), error.exit_status)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: no message about it either
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's name for an interrupt
            sys.exit(130)
        if not hasattr(error, "format_message"):  # a usage error of typer has it, whichever click it brings along
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            sys.exit(2)
        _refuse(error.format_message(), 2)


def _refuse(message: str, status: int) -> None:
    print(f"nicemu: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
