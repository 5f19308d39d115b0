"""The one reader of event logs: the events of a run, from the text form or a Perfetto trace alike."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nicemu.config.errors import ConfigError
from nicemu.observe.perfetto.decode import events

NUMBER = re.compile(r"-?\d+")
PERFETTO = (".pftrace", ".perfetto-trace")
"""Names of files that are written and read as Perfetto traces."""


class Event(NamedTuple):
    """One event. ``time``: ns of virtual time; ``who``: ``nic0``, ``nic1``..., ``host``; ``name`` and ``fields``: those
    of ``observe.event_log.FIELDS``, or of the host."""

    time: int
    who: str
    name: str
    fields: dict[str, int | str]


def value(text: str) -> int | str:
    """A number, if it is one."""
    return int(text) if NUMBER.fullmatch(text) else text


def read(path: Path) -> Iterator[Event]:
    """The events of a log, in their order; a log whose run died ends early.

    :raises ConfigError: no such file; a line that is no event, bytes that are no packet.
    """
    try:
        if path.suffix in PERFETTO:
            for time, who, name, fields in events(path):
                yield Event(time, who, name, {key: value(str(v)) for key, v in fields.items()})
        else:
            yield from _read_text(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _read_text(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.endswith("\n"):
                yield _event(path, number, line)


def _event(path: Path, number: int, line: str) -> Event:
    words = line.split()
    if len(words) < 3 or not words[0].isdigit():
        raise ConfigError(f"{path}:{number}: expected 'time who event name=value ...', given {line.strip()[:60]!r}")
    fields = {name: value(text) for name, _, text in (word.partition("=") for word in words[3:])}
    return Event(int(words[0]), words[1], words[2], fields)
