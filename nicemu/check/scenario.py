"""Scenarios as data: the regions of a program's memory and the operations of each thread."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nicemu.check.reference import Effect
from nicemu.mm.discipline import DISCIPLINES, ERAS
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed


@dataclass(frozen=True, slots=True)
class Area:
    """A mapping of the program, whose pages hold ``fill`` + page at first. ``odp``: how it is registered."""

    name: str
    pages: int
    fill: int = 1
    odp: bool = True
    """An on-demand MR; False: no MR."""
    writable: bool = True
    """The device may write; else faults of the device leave copy-on-write as it is."""
    flags: int = 0
    """MAP_HUGETLB and the like, of anonymous memory."""
    file: str = ""
    """Map this file (made with ``pages`` pages) instead of anonymous memory."""
    shared: bool = False
    kind: str = "regular"
    """Of the file: a name of ``mm.file.FileKind``, in lower case."""
    prot: int = 3
    touched: bool = True
    """The program has written ``fill`` before the schedule begins."""
    seen: int = 0
    """Pages from the start that the scenario looks at (0: all): the rest is there, and zero."""
    align: int = 4096

    @property
    def known(self) -> int:
        """How many pages the scenario looks at."""
        return self.seen or self.pages


class Operation:
    """One call of a thread. Subclasses are frozen dataclasses."""

    def run(self, bed: Testbed) -> Steps[Any]:
        """Do it; gives what the thread observed, a hashable value."""
        raise NotImplementedError

    def effects(self, key: Any, result: Any) -> list[Effect]:
        """What it does to a sequential memory, in parts that are atomic each; none: it changes no contents."""
        return []

    def code(self) -> list[str]:
        """The same as lines of a pyverbs program."""
        return [f"pass  # {self}: the kernel does this by itself"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``threads``: by name, what each does in order. ``sites``: the call sites it is there for."""

    name: str
    what: str
    sites: tuple[str, ...]
    areas: tuple[Area, ...]
    threads: dict[str, tuple[Operation, ...]]
    before: tuple[Operation, ...] = ()
    """Set-up of the program, before any schedule, with memory and MRs there."""
    warm: tuple[str, ...] = ()
    """Areas that the device has translations of when the schedule begins: it has written ``fill`` + page to them."""
    subscribers: tuple[Literal["kvm", "kvm-mutex", "xpmem"], ...] = ()
    """Others that mirror the program's memory."""
    host: dict[str, Any] = field(default_factory=dict)
    """Fields of the host profile that differ."""
    nic: dict[str, int] = field(default_factory=dict)
    """Costs of the device that differ, ns."""
    grain: int = 8
    """Device events that make one step of a schedule, if none of them shows to the host."""
    only: tuple[str, ...] = ERAS
    """The eras that it makes sense in, of those that have all its sites."""

    def eras(self) -> list[str]:
        """The disciplines that have all its sites."""
        return [era for era in self.only if all(site in DISCIPLINES[era].sites for site in self.sites)]
