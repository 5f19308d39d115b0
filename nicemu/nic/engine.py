"""The engine: one compiled loop over the event heap, and the units it reaches through the handler vector.

Units compile by themselves, in parallel processes when the cache is cold, with a progress line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from nicemu import _jit
from nicemu._jit import call, entry, guard, jit, object_code
from nicemu.abi.rings import Doorbell
from nicemu.fabric import link, pause, switch
from nicemu.nic import (
    arrive,
    command,
    commit,
    completer,
    congestion,
    cq,
    device_event,
    dma,
    eq,
    held_event,
    hooks,
    msix,
    page_fault,
    port,
    program_ring,
    qp_state,
    raw_receive,
    raw_send,
    read_response,
    receive_queue,
    rendezvous,
    reply,
    requester,
    responder,
    send_queue,
    tag_list,
    tag_matching,
)
from nicemu.nic.hooks import ask
from nicemu.nic.qp_cache import touch
from nicemu.tables import units
from nicemu.tables.capture import MAX_CAPTURE
from nicemu.tables.heap import pop
from nicemu.tables.records import Stop
from nicemu.tables.rows import control, event, nic, qp, vector
from nicemu.tables.trace import MAX_TRACE, Ev, trace
from nicemu.tables.world import World

DEADLINE, INTERRUPT, CQE, IDLE, FULL, TRAP = (int(stop) for stop in Stop)
GO_ON = -1
DOORBELL, SEND_BANK, RECV_BANK = int(Ev.DOORBELL), int(Doorbell.SEND), int(Doorbell.RECV)


def doorbell(world, row, receives):
    """DOORBELL: a send doorbell reached the NIC; in ERR and SQE it flushes what was posted. In ERR, or ``receives``: a
    receive doorbell."""
    q = qp(world, row)
    if q.valid == 0:
        return 0
    if receives == 0:
        trace(world, DOORBELL, q.nic, q.number, SEND_BANK, program_ring.sends_posted(world, row), 0)
    if q.state == qp_state.ERR:
        if receives and ask(world, q.nic, hooks.LATE_RECEIVE, row, 0) == 0:
            return 0
        return call(vector(world, units.QP_ERROR).address, world, row, 0)
    if q.state == qp_state.SQE:
        return call(vector(world, units.SQ_ERROR).address, world, row, 0)
    if q.sq_scheduled == 0:
        send_queue.kick(world, row, nic(world, q.nic).wqe_fetch_ns + touch(world, q.nic, row))
    return 0


UNITS: dict[int, Callable] = {
    units.REQUESTER: requester.requester, units.DEPART: port.depart, units.ARRIVE: arrive.arrive,
    units.COMMIT: commit.commit, units.READ_RESPONSE: read_response.read_response, units.ACK_TIMER: completer.ack_timer,
    units.RNR_TIMER: completer.rnr_timer, units.COMMAND: command.command, units.COMMAND_DONE: command.command_done,
    units.FAULT_REPORT: page_fault.report, units.RESUME: page_fault.resume, units.INTERRUPT: msix.interrupt,
    units.FAULT_RETRY: page_fault.retry,
    units.CQ_ARM: cq.arm, units.EQ_ARM: eq.arm, units.DOORBELL: doorbell, units.COMPLETER: completer.completer,
    units.RESPONDER: responder.responder, units.QP_ERROR: qp_state.qp_error,
    units.GATHER_FAILED: requester.gather_failed, units.RETIRE: send_queue.retire,
    units.LINK_SEND: link.link_send, units.LINK_START: link.start, units.LINK_FREE: link.link_free,
    units.SWITCH_IN: switch.switch_in, units.PAUSE: pause.pause,
    units.ACK: reply.send_ack, units.SQ_ERROR: qp_state.send_queue_error, units.SENT: requester.sent,
    units.CQ_TIMER: cq.moderated, units.VECTOR_TIMER: msix.moderated, units.DEVICE_EVENT: device_event.device_event,
    units.TAG_OPERATION: tag_list.tag_operation, units.TAG_TAKE: tag_matching.take_message,
    units.TAG_COMPLETE: tag_matching.complete_message, units.TAG_FAILED: tag_matching.tag_failed,
    units.TAG_FLUSH: tag_matching.tag_flush,
    units.RENDEZVOUS: rendezvous.rendezvous,
    units.RELEASE_HELD: held_event.release, units.CQ_RIPEN: cq.ripen,
    units.PROGRAM_RING: program_ring.transfer,
    units.CONGESTION_TIMER: congestion.congestion_timer,
    units.RECV_TELLS: receive_queue.recv_tells, units.MISPLACE: dma.misplace,
    units.RAW_BUILD: raw_send.raw_build, units.RAW_DEPART: raw_send.raw_depart,
    units.RAW_ARRIVE: raw_receive.raw_arrive, units.RAW_COMMIT: raw_receive.raw_commit,
    units.RAW_RESUME: raw_receive.raw_resume,
}  # fmt: skip


HEAVY_FIRST = (units.COMMIT, units.RESPONDER, units.REQUESTER, units.COMMAND)
"""Units that take longest to compile: before the rest."""
ENTRIES = "ENTRIES"
"""The kernels that Python calls, as one task."""


@jit
def stop_reason(world, until):
    """Why the run stops here, a :class:`Stop`; ``GO_ON``: the next event is due."""
    c = control(world, 0)
    if c.trap != 0:
        return TRAP
    if c.interrupts > 0:
        return INTERRUPT
    if c.cqe_hits > 0:
        c.cqe_hits = 0
        return CQE
    if c.trace_count >= MAX_TRACE or c.capture_count >= MAX_CAPTURE:
        return FULL
    if c.pending == c.stale:
        return IDLE
    return DEADLINE if event(world, 0).time > until else GO_ON


@jit
def run_event(world):
    """Run the next event."""
    c = control(world, 0)
    e = event(world, 0)
    kind, a, b = e.kind, e.a, e.b
    c.now = max(c.now, e.time)
    pop(world)
    c.ran += 1
    call(vector(world, kind).address, world, a, b)


@entry("int64(int64, int64)")
def run(world, until):
    """Run events at times <= ``until`` in (time, sequence) order; the answer is a :class:`Stop`."""
    while True:
        stop = stop_reason(world, until)
        if stop != GO_ON:
            return stop
        run_event(world)


def compile_cold(progress: Callable[[str], None] | None = None) -> None:
    """Fill a cold cache: the units in parallel processes. A second process waits for the first.

    Without a folder that can be written this process compiles for itself when it loads the units.
    """
    folder = _jit.cache_root() / _jit.kernel_digest()
    stamp = folder / "complete"
    if not _jit.JIT or stamp.exists():
        return
    say = progress or (lambda line: print(line, file=sys.stderr, flush=True))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        say(f"nicemu: {folder}: {error.strerror}; compiling for this process only, some minutes (set NICEMU_CACHE to a "
            "folder that can be written)")  # fmt: skip
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            _compile_all(say)
            object_code.cold.add(folder.name)
            stamp.touch()


def is_compiled() -> bool:
    """The cache has the whole engine."""
    return not _jit.JIT or (_jit.cache_root() / _jit.kernel_digest() / "complete").exists()


def load_units() -> dict[int, int]:
    """The code address of each unit."""
    return {number: _jit.install(function) for number, function in UNITS.items()}


def code_text() -> str:
    """Where the engine's code came from in this process: ``49 units from the cache, 0 compiled``."""
    if not _jit.JIT:
        return f"{len(UNITS)} units in plain Python"
    work = object_code.work[_jit.kernel_digest()]
    return f"{work.cached} functions from the cache, {work.compiled} compiled"


def _compile_all(say: Callable[[str], None]) -> None:
    """One process per core; each gets the next unit when it is done with one, heaviest first; a line for each."""
    workers = max(1, min(os.cpu_count() or 1, 4))
    order = [*HEAVY_FIRST, *(number for number in UNITS if number not in HEAVY_FIRST)]
    say(f"nicemu: compiling the engine, {len(order)} units in {workers} processes (once per release)")
    started = time.monotonic()
    tasks = iter([*map(str, order), ENTRIES])
    pipe = subprocess.PIPE
    parts = [subprocess.Popen([sys.executable, "-m", "nicemu.nic.compile"], stdin=pipe, stdout=pipe, text=True)
             for _ in range(workers)]  # fmt: skip
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
                    say(f"nicemu: {done:>2}/{len(order)} {line:<16} {time.monotonic() - started:5.1f} s")
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
