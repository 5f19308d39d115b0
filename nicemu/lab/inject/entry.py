"""One planted fault: which occasions it takes, how often and when it fired, and why it did not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.config.injection.rules import Counted
from nicemu.timeline import Sleep, Steps

if TYPE_CHECKING:
    from nicemu.driver.device import IbDevice
    from nicemu.lab.lab import Lab


def around(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """The seam: what is called by this name of ``owner`` becomes ``wrap`` of what it was."""
    setattr(owner, name, wrap(getattr(owner, name)))


class Injected:
    """Entry ``number`` (from 0) of ``inject:``. ``seen``: occasions so far; times in ns of virtual time."""

    def __init__(self, lab: Lab, what: Any, number: int) -> None:
        self.lab, self.what, self.number = lab, what, number
        self.planted_at = lab.scheduler.clock()
        self.seen = self.count = 0
        self.first_at = self.last_at = 0
        self.refused = ""
        """Why it could not happen when it was to."""

    @property
    def device(self) -> IbDevice:
        """The NIC it is about."""
        device: IbDevice = self.lab.driver.devices[self.what.nic]
        return device

    @property
    def fired(self) -> bool:
        """It happened."""
        return self.count > 0

    def strikes(self, do: Callable[[], None] | None = None) -> bool:
        """Here is an occasion: True if the fault takes it, which is a firing. ``do``: what is to come before its row in
        the event log."""
        what = self.what
        if self.lab.scheduler.clock() - self.planted_at < what.after_ns:
            return False
        self.seen += 1
        if not self._is_chosen(what):
            return False
        if do is not None:
            do()
        self.fire()
        return True

    def _is_chosen(self, what: Counted) -> bool:
        if what.every is not None or what.chance is not None:
            if what.times is not None and self.count >= what.times:
                return False
            return self.seen % what.every == 0 if what.every is not None else self._draw() < (what.chance or 0)
        first = what.nth or 1
        return first <= self.seen < first + (what.times or 1)

    def _draw(self) -> float:
        """A number in [0, 1), of the seed, the entry and the occasion alone: other faults cannot change it."""
        return random.Random(f"{self.lab.config.seed} inject {self.number} {self.seen}").random()

    def fire(self) -> None:
        """It happens now: count it, log it."""
        self.count += 1
        self.last_at = self.lab.scheduler.clock()
        self.first_at = self.first_at if self.count > 1 else self.last_at
        self.lab.host.event("INJECT", entry=self.number, event=self.what.event, count=self.count)

    def at_its_time(self, steps: Callable[[], Steps[None]]) -> None:
        """Run ``steps`` in a host thread ``at_ns`` from now."""

        def thread() -> Steps[None]:
            yield Sleep(self.what.at_ns)
            yield from steps()

        self.lab.scheduler.spawn(thread(), f"inject-{self.what.event}", daemon=True)

    def why_not(self) -> str:
        """Why it did not fire."""
        what = self.what
        if self.refused:
            return self.refused
        if not isinstance(what, Counted):
            return f"its time, {self.planted_at + what.at_ns} ns, never came: it is {self.lab.scheduler.clock()} ns"
        if self.seen == 0:
            return "never saw " + what.occasion + (f" after {what.after_ns} ns" if what.after_ns else "")
        return f"saw {what.occasion} {self.seen} times, and took none"

    def __str__(self) -> str:
        where = f" {self.device.name}" if hasattr(self.what, "nic") else ""
        name = f"{self.what.event}{where}" + (f" {self.what.detail}" if self.what.detail else "")
        if not self.fired:
            return f"{name}: did not fire: {self.why_not()}"
        if self.count == 1:
            return f"{name}: fired at {self.first_at} ns"
        return f"{name}: fired {self.count} times, from {self.first_at} to {self.last_at} ns"
