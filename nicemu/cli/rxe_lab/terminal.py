"""Our terminal while a shell of the guest has it: raw, so that every key goes there, and restored at the end."""

import os
import shutil
import sys
import termios
import tty
from typing import Any

from nicemu.config.errors import ConfigError

ESCAPE = b"\x1d"  # Ctrl-], as in telnet


class Terminal:
    """A context; without `interactive` it does nothing. `source` is where keys come from."""

    def __init__(self, interactive: bool) -> None:
        self.source: int | None = sys.stdin.fileno() if interactive else None
        self.columns, self.rows = shutil.get_terminal_size()
        self._saved: list[Any] | None = None
        if interactive and not sys.stdin.isatty():
            raise ConfigError("expected a terminal for the guest's shell, or -- and a command")

    def __enter__(self) -> "Terminal":
        if self.source is not None:
            self._saved = termios.tcgetattr(self.source)
            tty.setraw(self.source)
        return self

    def __exit__(self, *_: object) -> None:
        if self.source is not None and self._saved is not None:
            termios.tcsetattr(self.source, termios.TCSADRAIN, self._saved)

    def write(self, content: bytes) -> None:
        """What the guest's console says."""
        os.write(sys.stdout.fileno(), content)

    def is_escape(self, content: bytes) -> bool:
        """Whether the user wants to leave without the guest's consent."""
        return ESCAPE in content
