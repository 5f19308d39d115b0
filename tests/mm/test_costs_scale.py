"""Operations touch only the pages they name: over 1 TiB they do the work that they do over 8 MiB with as many pages.

Work is counted, not timed: bytecodes that Python ran, steps of the host thread, nodes of the page table, frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.bytecodes import bytecodes
from tests.mm.conftest import PAGE, Machine

MIB, TIB = 1 << 20, 1 << 40
SMALL, LARGE = 8 * MIB, TIB
DONTNEED, DONTFORK, PAGEOUT = 4, 10, 21
READ, READ_WRITE = 1, 3


@dataclass(frozen=True)
class Work:
    """What an operation took."""

    bytecodes: int
    steps: int
    nodes: int
    frames: int


def work(machine: Machine, steps: Any) -> Work:
    """Run an operation of a host thread and count."""
    taken, step = 0, machine.scheduler.step

    def counted(until: int) -> None:
        nonlocal taken
        taken += 1
        step(until)

    machine.scheduler.step = counted  # type: ignore[method-assign]
    control = machine.world.control[0]
    nodes, frames = int(control.node_next), machine.frames.allocated
    ran = bytecodes(lambda: machine.run(steps))
    machine.scheduler.step = step  # type: ignore[method-assign]
    return Work(ran, taken, int(control.node_next) - nodes, machine.frames.allocated - frames)


def populated(length: int) -> tuple[Machine, int]:
    """A machine and a mapping of which one page at each end and one in the middle are present."""
    machine = Machine()
    at = machine.run(machine.process.mmap(length))
    machine.run(machine.process.mmap(PAGE))  # behind it: there is no room to grow
    for place in (0, length // 2, length - PAGE):
        machine.run(machine.process.write(at + place, b"x"))
    return machine, at


def both(operation: Callable[[Machine, int, int], Any]) -> tuple[Work, Work]:
    """The work of an operation on a mapping of 8 MiB, and on one of 1 TiB with as many pages."""
    small, large = (work(machine, operation(machine, at, length))
                    for length in (SMALL, LARGE) for machine, at in (populated(length),))  # fmt: skip
    return small, large


OPERATIONS: dict[str, Callable[[Machine, int, int], Any]] = {
    "munmap": lambda machine, at, length: machine.process.munmap(at, length),
    "mprotect": lambda machine, at, length: machine.process.mprotect(at, length, READ),
    "mprotect to nothing": lambda machine, at, length: machine.process.mprotect(at, length, 0),
    "DONTNEED": lambda machine, at, length: machine.process.madvise(at, length, DONTNEED),
    "DONTFORK": lambda machine, at, length: machine.process.madvise(at, length, DONTFORK),
    "PAGEOUT": lambda machine, at, length: machine.process.madvise(at, length, PAGEOUT),
    "fork": lambda machine, at, length: machine.process.fork(),
    "mremap in place": lambda machine, at, length: machine.process.mremap(at, length, length - PAGE),
    "mremap elsewhere": lambda machine, at, length: machine.process.mremap(at, length, length + MIB),
    "snapshot": lambda machine, at, length: machine.mm.snapshot(at, length // PAGE),
    "exit": lambda machine, at, length: machine.process.exit(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_on_1_tib_does_the_work_of_its_pages(name: str) -> None:
    small, large = both(OPERATIONS[name])
    assert (large.steps, large.frames) == (small.steps, small.frames)
    assert large.nodes <= small.nodes + 9  # three leaves lie under inner nodes of their own
    assert large.bytecodes <= 1.1 * small.bytecodes


def test_mapping_1_tib_is_immediate() -> None:
    small, large = (
        work(machine, machine.process.mmap(length)) for length in (SMALL, LARGE) for machine in (Machine(),)
    )
    assert large == small and large.nodes == large.frames == 0


def test_munmap_of_1_tib_gives_every_node_and_frame_back() -> None:
    machine, at = populated(LARGE)
    machine.run(machine.process.munmap(at, LARGE))
    assert machine.frames.allocated == 0 and not machine.mm.page_table._leaves
    machine.check_counts()


@pytest.mark.parametrize("pages", [1, 7, 600])
def test_populating_costs_what_is_populated_wherever_it_lies(pages: int) -> None:
    """The same pages at the far end of 1 TiB as at the start of 8 MiB."""
    found = []
    for length, place in ((SMALL, 0), (LARGE, LARGE // 2)):
        machine = Machine()
        at = machine.run(machine.process.mmap(length))
        machine.run(machine.process.write(at + length - PAGE, b"x"))
        found.append(work(machine, machine.mm.fault_in(at + place, pages, True)))
    small, large = found
    assert large.frames == small.frames == pages and large.steps == small.steps
    assert large.nodes <= small.nodes + 2 and large.bytecodes <= 1.1 * small.bytecodes


def test_the_work_of_zapping_grows_with_what_is_mapped() -> None:
    """The other half of the rule: it is counted at all."""
    taken = []
    for pages in (1, 512, 4 * 512):
        machine = Machine()
        at = machine.run(machine.process.mmap(TIB))
        machine.run(machine.mm.fault_in(at, pages, True))
        taken.append(work(machine, machine.process.madvise(at, TIB, DONTNEED)))
    assert taken[0].steps == taken[1].steps < taken[2].steps
    assert [one.frames for one in taken] == [-1, -512, -2048]
