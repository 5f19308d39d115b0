"""The engine as a lab holds it: the compiled loop over one world, entered from Python."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from nicemu import _jit
from nicemu._jit import guard
from nicemu.nic.cold_start import compile_cold
from nicemu.nic.dispatch import FULL, run
from nicemu.nic.unit_code import load_units
from nicemu.tables.world import World


class Engine:
    """The compiled side of a lab: what the timeline calls, several times for each thing a host does.

    Words of the tables are therefore read through memoryviews: a field of a recarray costs a hundred times as much.
    """

    def __init__(self, world: World, on_trace: Callable[[World], None] | None = None) -> None:
        self.world = world
        self.on_trace = on_trace
        control_row, messages = (table.view(np.ndarray) for table in (world.control, world.message))
        self._now, self._epoch, self._interrupts, self._pending, self._stale = (
            memoryview(control_row[name]) for name in ("now", "epoch", "interrupts", "pending", "stale"))  # fmt: skip
        self._nics, self._vectors = (memoryview(messages[name]) for name in ("nic", "vector"))
        compile_cold()
        for number, address in load_units().items():
            world.vector[number].address = address
        self._run = run.load() if _jit.JIT else run
        self._address = world.address
        control = world.control[0]
        control.pid = os.getpid()
        control.copy_code, control.watch_code = guard.codes()

    def enter(self) -> None:
        """The program ran since the last call, and may have changed what happens on a bad address."""
        self._epoch[0] += 1

    def run(self, until: int) -> int:
        """Run device events at times <= ``until``; drains trace and capture when a table of theirs is full."""
        while True:
            stop: int = self._run(self._address, until)
            if stop != FULL or self.on_trace is None:
                return stop
            self.on_trace(self.world)

    def idle(self) -> bool:
        """No event is left to run, cancelled ones aside."""
        return self._pending[0] == self._stale[0]

    def interrupts(self) -> list[tuple[int, int]]:
        """(NIC index from 0, vector) of each MSI-X message since the last call."""
        count, self._interrupts[0] = self._interrupts[0], 0
        return [(self._nics[at] - 1, self._vectors[at]) for at in range(count)]

    def error(self, stop: int) -> Exception:
        """The trap as an exception."""
        return self.world.trap_error()

    def set_time(self, time: int) -> None:
        """Move the clock forward."""
        if time > self._now[0]:
            self._now[0] = time
