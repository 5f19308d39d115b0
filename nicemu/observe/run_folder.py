"""The folder of a recorded run, as its readers see it: ``nicemu stats``, ``top``, ``diff`` and ``why``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRACE, CAPTURE, COUNTERS, LIVE = "trace.pftrace", "capture.pcapng", "counters.json", "live.json"


class NoRun(Exception):
    """What was given is no recorded run. The text is one line for people."""


def trace_of(run: Path) -> Path:
    """The event log of a run: of a folder, or the file itself.

    :raises NoRun: there is none.
    """
    path = run / TRACE if run.is_dir() else run
    if not path.is_file():
        raise NoRun(f"expected a trace, or a folder of `nicemu run --record` with {TRACE}, given {str(run)!r}")
    return path


def counters_of(run: Path) -> dict[str, Any]:
    """The last counters of a recorded run: those at its end, or while it runs those of half a second ago.

    :raises NoRun: there are none, or the file is no such file.
    """
    path = next((run / name for name in (COUNTERS, LIVE) if (run / name).is_file()), run)
    if not path.is_file():
        raise NoRun(f"expected a folder of `nicemu run --record` with {COUNTERS}, given {str(run)!r}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise NoRun(f"{path}: expected counters of a run in JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != 1:
        raise NoRun(f"{path}: expected counters of a run with format 1")
    return value


def has_counters(run: Path) -> bool:
    """It is a folder with counters: one of a trace alone has none."""
    return any((run / name).is_file() for name in (COUNTERS, LIVE))


def is_running(run: Path) -> bool:
    """Its program has not ended, or was killed."""
    return (run / LIVE).is_file()
