"""``hmm_range_fault`` without faulting: what is present, and nothing is made so."""

from __future__ import annotations

from typing import Any

import numpy as np

from nicemu.memory.arena import PROT_NONE, PROT_READ

PAGE = 4096


def look(machine: Any, address: int, pages: int) -> dict[int, int]:
    """Page from the address on -> ``frame << 1 | writable`` of what is present."""
    runs = machine.run(machine.mm.snapshot(address, pages))
    first = address // PAGE
    return {page + i - first: int(frame) for page, frames in runs for i, frame in enumerate(frames) if frame}


def test_present_pages_are_found_and_no_fault_is_taken(machine: Any) -> None:
    at = machine.run(machine.process.mmap(2048 * PAGE))
    for page in (3, 4, 700, 2047):
        machine.run(machine.process.write(at + page * PAGE, b"x"))
    faults = machine.host.counters["pgfault"]
    found = look(machine, at, 2048)
    assert found == {page: machine.frame(at + page * PAGE) << 1 | 1 for page in (3, 4, 700, 2047)}
    assert machine.host.counters["pgfault"] == faults
    machine.check_counts()


def test_only_the_range_is_looked_at(machine: Any) -> None:
    at = machine.run(machine.process.mmap(8 * PAGE))
    machine.run(machine.process.write(at, bytes(8 * PAGE)))
    assert sorted(look(machine, at + 2 * PAGE, 3)) == [0, 1, 2]


def test_a_page_shared_by_fork_is_present_for_reading(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    machine.run(machine.process.write(at, b"x"))
    machine.run(machine.process.fork())
    assert look(machine, at, 1) == {0: machine.frame(at) << 1}


def test_what_the_area_forbids_is_not_present(machine: Any) -> None:
    at = machine.run(machine.process.mmap(2 * PAGE))
    machine.run(machine.process.write(at, bytes(2 * PAGE)))
    machine.run(machine.process.mprotect(at, PAGE, PROT_NONE))
    machine.run(machine.process.mprotect(at + PAGE, PAGE, PROT_READ))
    assert look(machine, at, 2) == {1: machine.frame(at + PAGE) << 1}


def test_swapped_pages_are_not_present(machine: Any) -> None:
    at = machine.run(machine.process.mmap(4 * PAGE))
    machine.run(machine.process.write(at, bytes(range(1, 5)) * PAGE))
    assert machine.run(machine.host.reclaim.reclaim_range(machine.mm, at, at + 2 * PAGE)) == 2
    assert sorted(look(machine, at, 4)) == [2, 3]


def test_the_cost_is_what_is_mapped(machine: Any) -> None:
    at = machine.run(machine.process.mmap(1 << 38))
    machine.run(machine.process.write(at, b"x"))
    runs = machine.run(machine.mm.snapshot(at, 1 << 26))
    assert [(page - at // PAGE, len(frames)) for page, frames in runs] == [(0, 1)]
    assert runs[0][1].dtype == np.int32
