"""The engine as a lab holds it: the compiled loop over one world, entered from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np

from nicemu import _jit
from nicemu._jit import guard
from nicemu.nic import bar
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
        control_row, messages = (table.view(np.ndarray) for table in (world.control, world.message))
        self._epoch, self._interrupts, self._pending, self._stale = (
            memoryview(control_row[name]) for name in ("epoch", "interrupts", "pending", "stale"))  # fmt: skip
        self._nics, self._vectors = (memoryview(messages[name]) for name in ("nic", "vector"))
        compile_cold()
        for number, address in load_units().items():
            world.vector[number].address = address
        self._run = run.load() if _jit.JIT else run
        self._address = world.address
        self.on_trace = on_trace
        self.set_time: Callable[[int], None] = partial(
            bar.set_time.load() if _jit.JIT else bar.set_time, world.address)  # fmt: skip
        """Move the clock forward to the time given."""
        control = world.control[0]
        control.pid = os.getpid()
        control.copy_code, control.probe_code, control.watch_code = guard.codes()

    def enter(self) -> None:
        """The program ran since the last call, and may have changed what happens on a bad address."""
        self._epoch[0] += 1

    @property
    def on_trace(self) -> Callable[[World], None] | None:
        """Drains trace and capture when a table of theirs is full; None: there are none."""
        return self._on_trace

    @on_trace.setter
    def on_trace(self, drain: Callable[[World], None] | None) -> None:
        self._on_trace = drain
        self.run: Callable[[int], int] = (
            partial(self._run, self._address) if drain is None else partial(self._run_and_drain, drain)
        )
        """Run device events at times <= the one given: why it stops, a ``Stop``."""

    def _run_and_drain(self, drain: Callable[[World], None], until: int) -> int:
        while (stop := self._run(self._address, until)) == FULL:
            drain(self.world)
        return stop

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
