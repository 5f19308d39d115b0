"""Packet faults: a rule of the fabric, as of ``impairments:``, that counts its firings itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicemu.lab.inject.entry import Injected

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab


class InjectedPackets(Injected):
    """An entry ``event: packet``."""

    def __init__(self, lab: Lab, what: Any, number: int) -> None:
        self.lab, self.what, self.number = lab, what, number
        self.rule = lab.fabric.add(what)

    @property
    def count(self) -> int:  # type: ignore[override]
        """Packets hit."""
        return int(self.lab.world.impair[self.rule].fired)

    def why_not(self) -> str:
        """Packets that passed its filter, if there were any."""
        taps = self.lab.world.tap[1 : int(self.lab.world.fabric[0].taps) + 1]
        seen = sum(int(tap.seen) for tap in taps if int(tap.impairment) == self.rule)
        return f"saw {seen} packets that it concerns, and took none" if seen else "never saw a packet that it concerns"

    def __str__(self) -> str:
        name = f"packet {self.what.detail}"
        return f"{name}: hit {self.count} packets" if self.count else f"{name}: did not fire: {self.why_not()}"
