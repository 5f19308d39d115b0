"""The sanitizer's stamps follow the notifier, in every era."""

from __future__ import annotations

from typing import Any

import pytest

PAGE = 4096
ERAS = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7", "v6.12")


def touched(machine: Any, pages: int = 4) -> int:
    """Address of memory that was written."""
    at = machine.run(machine.process.mmap(pages * PAGE))
    machine.run(machine.process.write(at, b"x" * pages * PAGE))
    machine.kinds()
    return int(at)


def test_reuse_of_a_page_nobody_shares_notifies_nobody(machine: Any) -> None:
    at = touched(machine)
    machine.run(machine.process.mprotect(at, 4 * PAGE, 1))
    machine.run(machine.process.mprotect(at, 4 * PAGE, 3))
    frame = machine.frame(at)
    machine.kinds()
    machine.run(machine.process.write(at, b"y"))
    assert machine.kinds() == ["wp_fault"]
    assert machine.frame(at) == frame


@pytest.mark.parametrize("era", ERAS)
def test_stamps_follow_the_notifier(make_machine: Any, era: str) -> None:
    """A frame is stamped by what took it, after the stamp every translation made so far carries."""
    machine = make_machine(era)
    at = touched(machine)
    frame, stamp = machine.frame(at), machine.world.control[0].stamp
    machine.run(machine.process.fork())
    row = machine.world.frame_stamp[frame]
    assert row.protected > stamp and row.invalidated == 0 and machine.frames.operation_name(row.operation) == "fork"
    stamp = machine.world.control[0].stamp
    machine.run(machine.process.write(at, b"y"))
    assert row.invalidated > stamp and machine.frames.operation_name(row.operation) == "cow"
    new = machine.frame(at)
    machine.run(machine.process.madvise(at, PAGE, 4))
    assert machine.frames.operation_name(machine.world.frame_stamp[new].operation) == "dontneed"
    assert machine.world.frame[new].generation == 2


@pytest.mark.parametrize("era", ERAS)
def test_what_a_child_unmaps_is_no_news_of_its_parents_pages(make_machine: Any, era: str) -> None:
    """A device translates through the parent: the shared frame is still there, whatever the child does."""
    machine = make_machine(era)
    at = machine.run(machine.process.mmap(2 * PAGE))
    machine.run(machine.process.write(at, bytes(2 * PAGE)))
    child = machine.run(machine.process.fork())
    rows = [machine.world.frame_stamp[machine.frame(address)] for address in (at, at + PAGE)]
    machine.run(child.write(at, b"x"))
    machine.run(child.madvise(at + PAGE, PAGE, 4))
    machine.run(child.exit())
    assert [int(row.invalidated) for row in rows] == [0, 0]
    machine.run(machine.process.madvise(at, 2 * PAGE, 4))
    assert all(int(row.invalidated) > 0 for row in rows)
