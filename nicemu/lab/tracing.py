"""``trace:``: the event log of a lab, in the form that the file's name says, and bounded if it shall be."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nicemu.observe.event_log import EventLog
from nicemu.observe.limited import Limited
from nicemu.observe.trace_reader import PERFETTO
from nicemu.tables.world import World

if TYPE_CHECKING:
    from nicemu.observe.perfetto.log import PerfettoLog

MEGABYTE = 1_000_000


def open_log(world: World, config: Any) -> EventLog | PerfettoLog:
    """``.pftrace`` and ``.perfetto-trace`` are Perfetto traces, other names text.

    :raises OSError: the file cannot be written.
    """
    perfetto = config.trace.suffix in PERFETTO
    stream = config.trace.open("wb", buffering=0) if perfetto else config.trace.open("w")
    if config.trace_limit_mb is not None:
        stream = Limited(stream, config.trace_limit_mb * MEGABYTE, lambda: _full(world, config))
    if not perfetto:
        return EventLog(world, stream)
    from nicemu.observe.perfetto.log import PerfettoLog  # late: a run without such a trace has no use for its kernels

    return PerfettoLog(world, stream, list(config.device_names))


def _full(world: World, config: Any) -> None:
    """The device goes on without a word; what the host says goes nowhere."""
    world.control[0].trace = 0
    text = f"nicemu: trace: {config.trace} has {config.trace_limit_mb} MB (trace_limit_mb); the run goes on without it"
    print(text, file=sys.stderr, flush=True)
