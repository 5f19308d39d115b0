"""Results of tests as they come: a file of JSON lines that another process, or a guest through its share, writes."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Tail:
    """Reads the objects that were added to a file since the last look; a line that is not complete yet waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """What is new. A line that is no JSON object, as a process leaves one that is killed while it writes, is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._position)
                new = file.read()
        except OSError:
            return
        complete = new.rfind(b"\n") + 1
        self._position += complete
        for line in new[:complete].splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found
