"""Filling a cold cache before the first run, in parallel processes and with a progress line.

A run waits only for the units that a program with RC queue pairs and on-demand memory reaches. What else it uses is
compiled then (:mod:`nicemu.nic.unit_code`). What is in the cache is not compiled again, so a fill may be interrupted.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Collection

from nicemu._jit import object_code
from nicemu.nic.dispatch import UNITS
from nicemu.nic.unit_code import alone, missing
from nicemu.tables import units

FIRST = (
    units.COMMIT, units.RESPONDER, units.REQUESTER, units.COMMAND, units.ARRIVE, units.DEPART, units.READ_RESPONSE,
    units.RETIRE, units.COMPLETER, units.COMMAND_DONE, units.RESUME, units.QP_ERROR, units.FAULT_REPORT, units.DOORBELL,
    units.ACK, units.ACK_TIMER, units.RNR_TIMER, units.EQ_ARM, units.INTERRUPT, units.SENT, units.CQ_ARM,
)  # fmt: skip
"""The units that a run waits for, the heaviest first: what examples/odp_pingpong.py reaches, and what a program that
waits for events, sends datagrams, loses a packet or flushes a queue does. Together two thirds of the engine's time."""
ENTRIES = "ENTRIES"
"""The kernels that Python calls, as one task."""
COMPILE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("nicemu", sys.argv[1])
sys.modules["nicemu"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["nicemu"])
from nicemu.nic.compile import main
main()
"""
"""Imports this package, though another may lie where the program runs, or come first on the path."""
Say = Callable[[str], None]


def compile_cold(progress: Say | None = None) -> None:
    """Have the cache filled with what nearly every run needs. A second process waits for the first.

    Without a folder that can be written, each unit is compiled when it is first used, for this process only.
    """
    _fill(FIRST, progress or _say)


def compile_all(progress: Say | None = None) -> None:
    """Have the cache filled with the whole engine, before processes start that would each use a unit first."""
    _fill([*FIRST, *UNITS], progress or _say)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fill(wanted: Collection[int], say: Say) -> None:
    if not set(wanted) & set(missing()):
        return
    folder = object_code.folder_of(None)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(folder))
        except OSError as error:
            say(f"nicemu: {folder}: {error.strerror}; compiling for this process only, a minute or two (set "
                "NICEMU_CACHE to a folder that can be written)")  # fmt: skip
            return
        lacking, before = set(missing()), set(folder.glob("*.o"))
        if tasks := [number for number in dict.fromkeys(wanted) if number in lacking]:
            _compile(tasks, say)
            object_code.fresh.update(set(folder.glob("*.o")) - before)


def _compile(numbers: list[int], say: Say) -> None:
    """One process per core; each gets the next unit when it is done with one; a line for each."""
    workers = max(1, min(os.cpu_count() or 1, 4))
    say(f"nicemu: compiling the engine, {len(numbers)} units in {workers} processes (once per release)")
    started = time.monotonic()
    tasks = iter([*map(str, numbers), ENTRIES])
    pipe = subprocess.PIPE
    command = [sys.executable, "-P", "-c", COMPILE, str(object_code.PACKAGE / "__init__.py")]
    parts = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(workers)]
    done = 0
    with selectors.DefaultSelector() as selector:
        for part in parts:
            selector.register(part.stdout, selectors.EVENT_READ, part)  # type: ignore[arg-type]
            _give(part, next(tasks, None))
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline().strip()  # type: ignore[union-attr]
                if not line:
                    selector.unregister(key.fileobj)
                    continue
                _give(key.data, next(tasks, None))
                if line != ENTRIES:
                    done += 1
                    say(f"nicemu: {done:>2}/{len(numbers)} {line:<16} {time.monotonic() - started:5.1f} s")
    failed = [part.wait() for part in parts]
    if any(failed):
        raise RuntimeError(f"compiling the engine failed: exit status {failed}")


def _give(part: subprocess.Popen[str], task: str | None) -> None:
    """Ask a process for a task, or for its end. One that has died says so by its exit status."""
    assert part.stdin is not None
    with contextlib.suppress(OSError):
        if task is None:
            part.stdin.close()
        else:
            print(task, file=part.stdin, flush=True)
