"""The folder of a recorded run, as its readers see it: ``nicemu stats``, ``top``, ``diff`` and ``why``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nicemu.config.errors import ConfigError

TRACE, CAPTURE, COUNTERS, LIVE = "trace.pftrace", "capture.pcapng", "counters.json", "live.json"


OTHERS = "*"
"""In a shape: every name that is not listed."""
COUNTED = {OTHERS: {OTHERS: int}}
SHAPE: dict[str, Any] = {
    "virtual_ns": int, "device_events": int, "seed": int, "lock_reports": int, "dma_violations": int,
    "discipline": str, "firmware": str, "history": str, "notes": [str], "host": {OTHERS: int}, "driver": {OTHERS: int},
    "port": COUNTED, "link": COUNTED,
    "nic": {OTHERS: dict.fromkeys(
        ("packets_sent", "bytes_sent", "page_faults", "rnr_naks_sent", "retransmits", "timeouts", "iotlb_hits",
         "iotlb_misses", OTHERS), int)},
    "qp": {OTHERS: dict.fromkeys(("send_fetched", "send_completed", "receives_taken"), int)
           | dict.fromkeys(("type", "state", "waits_for"), str)},
    "mr": {OTHERS: dict.fromkeys(
        ("page_faults", "page_invalidations", "page_prefetch", "page_faults_handled", OTHERS), int) | {"device": str}},
}  # fmt: skip
"""What readers need of ``nicemu.lab.counters``."""


def trace_of(run: Path) -> Path:
    """The event log of a run: of a folder, or the file itself.

    :raises ConfigError: there is none.
    """
    path = run / TRACE if run.is_dir() else run
    if not path.is_file():
        raise ConfigError(f"expected a trace, or a folder of `nicemu run --record` with {TRACE}, given {str(run)!r}")
    return path


def counters_of(run: Path) -> dict[str, Any]:
    """The last counters of a recorded run: those at its end, or while it runs those of half a second ago.

    :raises ConfigError: there are none, or the file is no such file.
    """
    path = next((run / name for name in (COUNTERS, LIVE) if (run / name).is_file()), run)
    if not path.is_file():
        raise ConfigError(f"expected a folder of `nicemu run --record` with {COUNTERS}, given {str(run)!r}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: expected counters of a run in JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") != 1:
        raise ConfigError(f"{path}: expected counters of a run with format 1")
    wrong = _misfit(value, SHAPE, "")
    if wrong:
        raise ConfigError(f"{path}: field {wrong}: expected the counters of a run, given something else or nothing")
    return value


def _misfit(value: Any, shape: Any, place: str) -> str:
    """The first place at which a value has another shape; nothing if it fits."""
    if isinstance(shape, type):
        return "" if isinstance(value, shape) else place
    if isinstance(shape, list):
        fits = isinstance(value, list) and all(isinstance(each, shape[0]) for each in value)
        return "" if fits else place
    if not isinstance(value, dict):
        return place
    for name in dict.fromkeys([*shape, *(value if OTHERS in shape else ())]):
        expected = shape.get(name, shape.get(OTHERS))
        wrong = "" if name == OTHERS else _misfit(value.get(name), expected, f"{place}.{name}".strip("."))
        if wrong:
            return wrong
    return ""


def has_counters(run: Path) -> bool:
    """It is a folder with counters: one of a trace alone has none."""
    return any((run / name).is_file() for name in (COUNTERS, LIVE))


def is_running(run: Path) -> bool:
    """Its program has not ended, or was killed."""
    return (run / LIVE).is_file()
