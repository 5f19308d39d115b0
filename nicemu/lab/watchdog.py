"""The watchdog: a wait that cannot end becomes a report that names who waits, never a silent hang.

Three ways to it: a blocked call with nothing left to run; polls in vain while a host thread or a suspended QP waits for
an interrupt that did not come; and, like the kernel's khungtaskd, a host thread blocked longer than
``host.hung_task_timeout_ns`` while other things go on. A report goes to stderr and into the exception.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from nicemu.abi.rings import Eqn
from nicemu.abi.verbs import QpState
from nicemu.lab.inject.rings import posted
from nicemu.tables.records import FAULTS_PER_QP
from nicemu.timeline import HostThread, HungTask, Sleep, Steps, hung_task

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.lab.lab import Lab

LINES_OF_A_KIND = 8
CHECKS_PER_LIMIT = 4
EQ_NAMES = {Eqn.COMMAND: "commands", Eqn.ASYNC: "async events", Eqn.PAGE_FAULT: "page faults"}


class Watchdog:
    """The watchdog of one lab. ``reports``: what it said so far."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.reports: list[str] = []
        self._hung: set[int] = set()
        self._noted = False
        timeline = lab.timeline
        timeline.explain, timeline.stuck, timeline.alarm = self.lines, self.stuck, self.alarm
        timeline.untold, timeline.note = self.untold, self.note
        self._spawn()

    def alarm(self, text: str) -> None:
        """Say it on stderr, once."""
        if text not in self.reports:
            self.reports.append(text)
            print(f"nicemu: watchdog: {text}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say it on stderr, the first time; it is no failure."""
        if self._noted:
            return
        self._noted = True
        print(f"nicemu: watchdog: {text}", file=sys.stderr, flush=True)

    def stuck(self) -> bool:
        """With nothing left to run: a host thread is blocked, or page faults lie unread in their queue."""
        if any(not thread.daemon for thread in self.lab.scheduler.blocked.values()):
            return True
        return any(_unread(device, Eqn.PAGE_FAULT) for device in self.lab.driver.devices)

    def untold(self) -> bool:
        """With nothing left to run: a QP is suspended, or requests lie in a ring whose doorbell did not arrive."""
        return any(True for device in self.lab.driver.devices for kind in (_faults, _untold) for _ in kind(device))

    def interrupted(self) -> str:
        """Who waits for whom when somebody outside has lost patience."""
        text = self.lab.timeline.who_waits("interrupted")
        return text if self.lab.pending else f"{text}\n  nothing is left to run: no poll will find anything new"

    def lines(self) -> list[str]:
        """What went wrong on purpose, and what is not as it should be in the devices: vectors, event queues, CQs, QPs
        suspended, failed, not done or not told."""
        found = [f"inject.{entry.number}: {entry}" for entry in self.lab.injected if entry.fired]
        for device in self.lab.driver.devices:
            for kind in (_vectors, _queues, _cqs, _faults, _requests, _untold):
                lines = [f"{device.name} {line}" for line in islice(kind(device), LINES_OF_A_KIND + 1)]
                found += lines[:LINES_OF_A_KIND] + ["..."] * (len(lines) > LINES_OF_A_KIND)
        return found

    def _spawn(self) -> None:
        limit = self.lab.config.host.hung_task_timeout_ns
        if limit:
            self.lab.scheduler.spawn(self._check(limit), "khungtaskd", daemon=True)

    def _check(self, limit: int) -> Steps[None]:
        """Look ``CHECKS_PER_LIMIT`` times a limit; each thread is reported once."""
        while True:
            yield Sleep(max(limit // CHECKS_PER_LIMIT, 1), idle=True)
            now = self.lab.scheduler.clock()
            for thread in self.lab.scheduler.blocked.values():
                if thread.daemon or thread.number in self._hung or now - thread.since < limit:
                    continue
                if self._will_time_out(thread):
                    continue
                self._hung.add(thread.number)
                head = f"INFO: task {thread.name} blocked for more than {limit / 1e9:g} seconds"
                text = "\n  ".join([self.lab.timeline.who_waits(head), *hung_task.report(thread)])
                self.alarm(text)
                self._spawn()
                raise HungTask(text)

    def _will_time_out(self, thread: HostThread) -> bool:
        """It waits for a command, and the driver will give that up."""
        return any(thread.waits_for is wait for device in self.lab.driver.devices
                   for wait in device.commands.expected.values())  # fmt: skip


def _unread(device: IbDevice, eqn: int) -> int:
    """EQEs that the driver has not taken."""
    row = device.device.world.eq[int(device.device.row.eq_base) + eqn]
    return int(row.produced) - device.eqs[eqn].consumed


def _name(eqn: int) -> str:
    return EQ_NAMES.get(eqn) or f"completions {eqn - Eqn.COMPLETION}"  # type: ignore[call-overload]


def _vectors(device: IbDevice) -> Iterator[str]:
    nic = device.device.row
    for eqn in device.eqs:
        row = device.device.world.msix[int(nic.eq_base) + eqn]
        words = [("function masked", nic.function_masked), ("masked", row.masked), ("message pending", row.pending)]
        states = [word for word, on in words if on]
        if row.lost:
            states.append(f"{int(row.lost)} messages lost")
        if states:
            yield f"MSI-X vector {eqn} ({_name(eqn)}): {', '.join(states)}"


def _queues(device: IbDevice) -> Iterator[str]:
    for eqn in device.eqs:
        unread, row = _unread(device, eqn), device.device.world.eq[int(device.device.row.eq_base) + eqn]
        if unread or row.held or row.lost:
            rest = "".join(f", {int(n)} {what}" for n, what in ((row.held, "held back"), (row.lost, "lost")) if n)
            yield f"EQ {eqn} ({_name(eqn)}): {unread} not consumed{rest}"


def _cqs(device: IbDevice) -> Iterator[str]:
    for number, cq in device.cqs.items():
        row: Any = device.device.world.cq[int(device.device.row.cq_base) + number]
        waiting = int(row.produced) - int.from_bytes(cq.record.view[:8], "little", signed=True)
        if row.overrun:
            yield f"CQ {number}: overrun, takes nothing more"
        elif waiting and (row.armed or row.event_held or _unread(device, int(row.eqn - device.device.row.eq_base))):
            event = "it is armed still" if row.armed else "its event was raised"
            yield f"CQ {number}: {waiting} completions wait, {event}"


def _faults(device: IbDevice) -> Iterator[str]:
    for number in device.qps:
        first = (int(device.device.row.qp_base) + number) * FAULTS_PER_QP
        for row in device.device.world.fault[first : first + FAULTS_PER_QP]:
            if row.open:
                yield f"QP {number}: suspended by a page fault since {int(row.time)} ns"


def _requests(device: IbDevice) -> Iterator[str]:
    for number in device.qps:
        row: Any = device.device.world.qp[int(device.device.row.qp_base) + number]
        state, waiting = QpState(int(row.state)), int(row.sq_fetched) - int(row.sq_una)
        if state in (QpState.ERR, QpState.SQE):
            yield f"QP {number}: in state {state.name}"
        elif waiting > 0:
            why = ", waits after an RNR NAK: the peer had no receive request, or not its page" if row.rnr_until else ""
            yield f"QP {number} ({state.name}): {waiting} requests not done{why}"


def _untold(device: IbDevice) -> Iterator[str]:
    """Of send queues, of receive queues in ERR, which need their doorbell only there, and of lists of tags."""
    for number, pair in device.qps.items():
        row: Any = device.device.world.qp[int(device.device.row.qp_base) + number]
        state = QpState(int(row.state))
        if state not in (QpState.RTS, QpState.SQE, QpState.ERR):
            continue
        sends = posted(pair, "send") - int(row.sq_fetched) if pair.send_slots and not pair.rendezvous else 0
        receives = posted(pair, "recv") - int(row.rq_next) if pair.recv_slots and state == QpState.ERR else 0
        for count, what in ((sends, "requests"), (receives, "receive requests")):
            if count > 0:
                yield f"QP {number} ({state.name}): {count} {what} posted that the device was not told of"
    for number, queue in device.srqs.items():
        producer, consumer = queue.tags.record.view[:16].cast("q") if queue.tags is not None else (0, 0)
        if producer != consumer:
            yield f"SRQ {number}: {producer - consumer} tag operations posted that the device was not told of"
