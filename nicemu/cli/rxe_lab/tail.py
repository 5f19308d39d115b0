"""Results of tests as they come: files of JSON lines that another process, or a guest through its share, writes."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Tail:
    """Reads the objects that were added to the files `*.jsonl` in a folder since the last look.

    A line that is not complete yet waits.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._positions: dict[Path, int] = {}

    def read(self) -> Iterator[dict[str, Any]]:
        """What is new. A line that is no JSON object, as a process that is killed may leave one, is passed over."""
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in self._new_lines(path):
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found

    def _new_lines(self, path: Path) -> list[bytes]:
        position = self._positions.get(path, 0)
        try:
            with open(path, "rb", opener=_plain) as file:
                file.seek(position)
                new = file.read()
        except OSError:
            return []
        complete = new.rfind(b"\n") + 1
        self._positions[path] = position + complete
        return new[:complete].splitlines()


def _plain(path: str, flags: int) -> int:
    """A guest may put a link or a pipe there: it must neither lead us elsewhere nor make us wait."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
