"""One run of a scenario under one schedule: host threads and device take turns as the policy says.

CPU costs and sleeps of host threads are no waits here: a thread that is not blocked may run at once, and the device's
next events may come at any time after those before them. So every order is possible that the locks and the device
allow, however unlikely its timing. Virtual time goes on with the device's events alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from nicemu.check import invariants
from nicemu.check.invariants import FreedWatch, Violation
from nicemu.check.policy import DEVICE, Policy
from nicemu.check.reference import Call, explained
from nicemu.check.scenario import Operation
from nicemu.check.testbed import Testbed
from nicemu.mm.lock_report import Kind
from nicemu.tables.records import Stop
from nicemu.tables.wheel import due
from nicemu.timeline.host import HostThread, Steps
from nicemu.timeline.hung_task import call_trace, deadlocks

LIMIT = 30_000
"""Steps after which a run counts as one that does not end."""


@dataclass(slots=True)
class Outcome:
    """What a run was and what it violated. ``answers``: every choice; ``widths``: how many options it had."""

    answers: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    reports: list[tuple[str, str, str]] = field(default_factory=list)
    """(operation, lock, subscriber) of each sleep in atomic context."""
    sites: list[tuple[str, str]] = field(default_factory=list)
    """(operation, call site) of each notification."""
    steps: int = 0
    switches: int = 0
    trace: list[tuple[str, str]] = field(default_factory=list)
    """(thread, where it stopped) of every step, when asked for."""


class Run:
    """A run in progress. ``tolerate``: lock reports are an era's normal state and no violations."""

    def __init__(self, bed: Testbed, policy: Policy, tolerate: bool = False, traced: bool = False) -> None:
        self.bed, self.policy, self.tolerate, self.traced = bed, policy, tolerate, traced
        self.outcome = Outcome()
        self._watch = FreedWatch(bed)
        self._calls: dict[str, list[Call]] = {}
        self._open: dict[str, str] = {}
        self._count = 0
        self._initial = dict(bed.state)

    def go(self) -> Outcome:
        """Run to the end or to the first violation."""
        bed = self.bed
        bed.host.notified.clear()
        bed.host.lockdep.preempts = True
        before = self._reports()
        threads = {
            name: bed.lab.scheduler.spawn(self._thread(name, operations), name)
            for name, operations in bed.scenario.threads.items()
        }
        try:
            self._explore()
            if not self.outcome.violations:
                self._judge(threads)
        except Exception as error:  # whatever a wrong order makes the model trip over is a finding
            self._found([Violation("crash", f"{type(error).__name__}: {error}")])
        self._abandon()
        self.outcome.reports = sorted(self._reports() - before)
        self.outcome.sites = sorted(bed.host.notified)
        return self.outcome

    def _reports(self) -> set[tuple[str, str, str]]:
        found = (report for report in self.bed.host.reports if report.kind == Kind.ATOMIC_SLEEP)
        return {(report.operation, report.lock, report.subscriber) for report in found}

    def _abandon(self) -> None:
        """Threads that will not go on release what they hold, in their own names."""
        scheduler = self.bed.lab.scheduler
        for thread in [*scheduler.runnable, *scheduler.blocked.values()]:
            scheduler.current = thread
            with contextlib.suppress(Exception):
                thread.steps.close()
        scheduler.current = None

    def _thread(self, name: str, operations: tuple[Operation, ...]) -> Steps[None]:
        calls = self._calls[name] = []
        yield 0
        for number, operation in enumerate(operations):
            called, self._open[name] = self._tick(), str(operation)
            result = yield from operation.run(self.bed)
            effects = tuple(operation.effects((name, number), result))
            calls.append(Call(str(operation), called, self._tick(), effects))
            del self._open[name]
            yield 0

    def _tick(self) -> int:
        self._count += 1
        return self._count

    # Exploration -----------------------------------------------------------------------------------------------------

    def _explore(self) -> None:
        bed, outcome = self.bed, self.outcome
        scheduler, control = bed.lab.scheduler, bed.lab.world.control[0]
        last = -1
        bed.lab.engine.enter()
        while outcome.steps < LIMIT:
            bed.poll()
            threads = scheduler.runnable
            options = [thread.number for thread in threads]
            if control.pending > control.stale:
                options.append(DEVICE)
            if not options:
                return
            preempts = last in options and last != DEVICE
            if preempts:
                options.remove(last)
                options.insert(0, last)
            chosen = self._choose(options, preempts)
            outcome.steps += 1
            outcome.switches += chosen != last
            last = chosen
            if chosen == DEVICE:
                self._device()
            else:
                thread = next(thread for thread in threads if thread.number == chosen)
                scheduler.run(thread)
                if self.traced:
                    outcome.trace.append((thread.name, where(thread)))
            if self._broken():
                return
        self._found([Violation("livelock", f"no end after {LIMIT} steps: {self._who()}")])

    def _choose(self, options: list[int], preempts: bool) -> int:
        if len(options) == 1:
            return options[0]
        answer = self.policy.choose(options, preempts)
        self.outcome.answers.append(answer)
        self.outcome.widths.append(len(options))
        return options[answer]

    def _device(self) -> None:
        """The next events of the devices: a grain of the scenario, or up to what the host can see."""
        lab, control, stop = self.bed.lab, self.bed.lab.world.control[0], int(Stop.DEADLINE)
        for _ in range(self.bed.scenario.grain):
            stop = lab.engine.run(due(lab.world.address))
            if stop != Stop.DEADLINE or control.pending == control.stale or self.bed.completed():
                break
        if stop in (Stop.TRAP, Stop.FULL):
            raise lab.engine.error(stop)
        if stop == Stop.INTERRUPT:
            lab.driver.deliver(lab.engine.interrupts())
        if self.traced:
            self.outcome.trace.append(("device", "interrupt" if stop == Stop.INTERRUPT else "events"))

    def _broken(self) -> bool:
        if self.bed.lab.violations:
            self._found(invariants.sanitizer(self.bed))
        if self._watch.found:
            self._found(self._watch.found)
        return bool(self.outcome.violations)

    # Judgement -------------------------------------------------------------------------------------------------------

    def _judge(self, threads: dict[str, HostThread]) -> None:
        """Everything is at rest: is it as it must be?"""
        bed = self.bed
        blocked = [thread for thread in bed.lab.scheduler.blocked.values() if not thread.daemon]
        if blocked or not all(thread.finished for thread in threads.values()):
            self._found([Violation("deadlock" if deadlocks(bed.lab.scheduler) else "lost", self._who())])
            return
        self._found(invariants.locks(bed, self.tolerate))
        self._found(invariants.stale(bed))
        self._found(invariants.counts(bed))
        if not self.outcome.violations:
            self._compare()

    def _who(self) -> str:
        open_calls = "; ".join(f"{name} is in {what}" for name, what in self._open.items())
        return f"{open_calls or 'no thread is in a call'}. {self.bed.lab.timeline.who_waits()}"

    def _compare(self) -> None:
        """Memory and observations are those of a sequential order."""
        final = self.bed.memory()
        present = {key: value for key, value in final.items() if value is not None}
        calls = [calls for calls in self._calls.values() if calls]
        if not explained(calls, self._initial, present):
            self._found([Violation("memory", f"no sequential order gives {_contents(present)}")])

    def _found(self, violations: list[Violation]) -> None:
        self.outcome.violations += violations


def _contents(state: dict[Any, Any]) -> str:
    return ", ".join(f"{mm + ':' if mm else ''}{area}[{page}]={value}" for (mm, area, page), value in state.items())


def where(thread: HostThread) -> str:
    """Where a thread stopped: its call chain, outermost first, and what it waits for."""
    chain = " > ".join(call_trace(thread)[-2::-1])
    return f"{chain} (waits for {thread.waits_for})" if thread.waits_for is not None else chain or "ends"
