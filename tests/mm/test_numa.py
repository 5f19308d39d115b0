"""NUMA nodes, hinting faults, ``move_pages``, compaction."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from nicemu.mm import Host
from nicemu.mm.compaction import compact_block
from nicemu.mm.discipline import NotInThisKernel
from nicemu.mm.numa import Numa, change_prot_numa
from nicemu.mm.page_table import PRESENT, PROTNONE, WRITE

PAGE = 4096


@pytest.fixture
def two_nodes(machine: Any) -> Any:
    machine.host.numa = Numa(machine.host, 2)
    return machine


def written(machine: Any, pages: int = 4) -> int:
    at = int(machine.run(machine.process.mmap(pages * PAGE)))
    for page in range(pages):
        machine.run(machine.process.write(at + page * PAGE, b"page %d" % page))
    machine.kinds()
    return at


def nodes(machine: Any, at: int, pages: int = 4) -> list[int]:
    return [machine.host.numa.node(machine.frame(at + page * PAGE)) for page in range(pages)]


def bytes_are_right(machine: Any, at: int, pages: int = 4) -> bool:
    return all(
        machine.run(machine.process.read(at + page * PAGE, 7)).rstrip(b"\0") == b"page %d" % page
        for page in range(pages)
    )


# Nodes as a cost


def test_a_page_is_on_the_node_of_its_first_user(two_nodes: Any) -> None:
    at = written(two_nodes)
    two_nodes.mm.node = 1
    other = written(two_nodes)
    assert nodes(two_nodes, at) == [0] * 4 and nodes(two_nodes, other) == [1] * 4


def test_a_remote_access_takes_longer(two_nodes: Any) -> None:
    at = written(two_nodes)
    clock = two_nodes.scheduler.clock
    start = clock()
    two_nodes.run(two_nodes.process.read(at, 4 * PAGE))
    local, start = clock() - start, clock()
    two_nodes.mm.node = 1
    two_nodes.run(two_nodes.process.read(at, 4 * PAGE))
    assert clock() - start == local + 4 * two_nodes.host.costs.numa_remote_ns


def test_profile_names_the_nodes(machine: Any) -> None:
    profile = SimpleNamespace(**vars(machine.host.profile) | {"numa_nodes": 4})
    assert Host(machine.world, machine.frames, machine.scheduler, profile, "v6.12").numa.nodes == 4


# Balancing


def test_scan_order(machine: Any) -> None:
    at = written(machine)
    assert machine.run(change_prot_numa(machine.mm, at, at + 4 * PAGE)) == 4
    assert machine.kinds() == ["notifier_start", "pte_protect", "notifier_end", "tlb_flush"]
    assert machine.mm.page_table.get(at // PAGE) & (PRESENT | PROTNONE | WRITE) == PROTNONE | WRITE
    machine.check_counts()


def test_a_scan_of_untouched_memory_notifies_nobody(machine: Any) -> None:
    at = machine.run(machine.process.mmap(PAGE))
    assert machine.run(change_prot_numa(machine.mm, at, at + PAGE)) == 0 and machine.kinds() == []


@pytest.mark.parametrize("bulk", [False, True], ids=["page", "bulk"])
def test_a_hinting_fault_of_the_same_node_gives_the_entry_back(machine: Any, bulk: bool) -> None:
    at = written(machine)
    before = machine.mm.page_table.get(at // PAGE), machine.frame(at)
    machine.run(change_prot_numa(machine.mm, at, at + 4 * PAGE))
    machine.run(machine.mm.fault_in(at, 4 if bulk else 1, True))
    assert (machine.mm.page_table.get(at // PAGE), machine.frame(at)) == before
    assert bytes_are_right(machine, at) and machine.host.counters["numa_hint_faults"] == 4
    machine.check_counts()


def test_a_hinting_fault_of_another_node_brings_the_page(two_nodes: Any) -> None:
    machine = two_nodes
    at = written(machine)
    machine.mm.node = 1
    machine.run(change_prot_numa(machine.mm, at, at + 4 * PAGE))
    assert bytes_are_right(machine, at) and nodes(machine, at) == [1] * 4
    assert machine.host.counters["numa_pages_migrated"] == 4
    machine.check_counts()


def test_a_shared_page_is_not_scanned(machine: Any) -> None:
    at = written(machine)
    child = machine.run(machine.process.fork())
    assert machine.run(change_prot_numa(machine.mm, at, at + 4 * PAGE)) == 0
    machine.check_counts(machine.mm, child.mm)


def test_whatever_happens_to_a_page_behind_a_hint(machine: Any) -> None:
    """Such an entry maps the page: reclaim, fork, mprotect, munmap see it."""
    at = written(machine, 5)
    machine.run(change_prot_numa(machine.mm, at, at + 5 * PAGE))
    assert machine.run(machine.host.reclaim.shrink(1)) == 1
    child = machine.run(machine.process.fork())
    machine.run(machine.process.mprotect(at + PAGE, PAGE, 1))
    machine.run(machine.process.write(at + 2 * PAGE, b"mine"))
    machine.run(machine.process.madvise(at + 3 * PAGE, PAGE, 4))
    machine.check_counts(machine.mm, child.mm)
    for page in range(5):
        assert machine.run(child.read(at + page * PAGE, 6)) == b"page %d" % page
    with pytest.raises(OSError):
        machine.run(machine.process.write(at + PAGE, b"x"))
    machine.run(child.exit())
    machine.run(machine.process.exit())
    assert machine.frames.allocated == 0 and machine.host.swap.used == 0


def test_balancing_is_not_in_3x(make_machine: Any) -> None:
    machine = make_machine("v3.7")
    at = written(machine)
    with pytest.raises(NotInThisKernel):
        machine.run(change_prot_numa(machine.mm, at, at + PAGE))
    assert machine.kinds() == []


# move_pages


def test_move_pages_gives_a_status_each(two_nodes: Any) -> None:
    machine = two_nodes
    at = written(machine)
    machine.run(machine.process.madvise(at + PAGE, PAGE, 4))
    machine.run(machine.mm.pin(at + 2 * PAGE, 1, True))
    status = machine.run(machine.process.move_pages([at + page * PAGE for page in range(4)], 1))
    assert status == [1, -errno.ENOENT, -errno.EBUSY, 1]
    machine.check_counts()


def test_no_such_node(two_nodes: Any) -> None:
    with pytest.raises(OSError) as error:
        two_nodes.run(two_nodes.process.move_pages([written(two_nodes)], 2))
    assert error.value.errno == errno.ENODEV


@pytest.mark.parametrize("era", ["v3.6", "v3.7-seed", "v6.12"])
def test_migration_to_a_node_notifies_as_migration_does(make_machine: Any, era: str) -> None:
    machine = make_machine(era)
    machine.host.numa = Numa(machine.host, 2)
    at = written(machine, 1)
    machine.run(machine.process.move_pages([at], 1))
    modern = ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", "migrate", "migrated", "free"]
    old = ["pte_clear", "tlb_flush", "notifier_page", "migrate", "migrated", "free"]
    assert machine.kinds() == (modern if era == "v6.12" else old)


def test_a_page_that_somebody_holds_for_a_while_is_retried(two_nodes: Any) -> None:
    machine = two_nodes
    at = written(machine, 1)
    frame = machine.frame(at)
    machine.host.pages.get(frame)

    def let_go() -> Any:
        yield 3000
        machine.host.pages.put(frame)

    machine.scheduler.spawn(let_go(), "holder")
    assert machine.run(machine.process.move_pages([at], 1)) == [1]
    assert machine.host.counters["pgmigrate_fail"] > 0 and bytes_are_right(machine, at, 1)


# Compaction

BLOCK = 8


def slots(machine: Any, at: int, pages: int) -> list[int]:
    return [int(machine.host.pages.slots[machine.frame(at + page * PAGE)]) for page in range(pages)
            if machine.frame(at + page * PAGE)]  # fmt: skip


@pytest.fixture
def scattered(machine: Any) -> tuple[Any, int]:
    """32 pages of simulated RAM of which every fourth is in use."""
    at = written(machine, 32)
    for page in range(32):
        if page % 4:
            machine.run(machine.process.madvise(at + page * PAGE, PAGE, 4))
    machine.kinds()
    return machine, at


def test_a_block_comes_free(scattered: tuple[Any, int]) -> None:
    machine, at = scattered
    number = machine.run(compact_block(machine.host, BLOCK))
    assert number >= 0 and not any(slot // BLOCK == number for slot in slots(machine, at, 32))
    for page in range(0, 32, 4):
        assert machine.run(machine.process.read(at + page * PAGE, 7)).rstrip(b"\0") == b"page %d" % page
    machine.check_counts()


def test_a_pinned_page_keeps_its_block(scattered: tuple[Any, int]) -> None:
    machine, at = scattered
    for page in range(0, 32, 4):
        machine.run(machine.mm.pin(at + page * PAGE, 1, True))
    assert machine.run(compact_block(machine.host, BLOCK)) == -1 and machine.kinds() == []


def test_all_its_pages_can_be_used_afterwards(make_machine: Any) -> None:
    machine = make_machine(ram=64, swap=0)
    at = written(machine, 32)
    for page in range(1, 32, 2):
        machine.run(machine.process.madvise(at + page * PAGE, PAGE, 4))
    assert machine.run(compact_block(machine.host, BLOCK)) >= 0
    rest = machine.run(machine.process.mmap(48 * PAGE))
    machine.run(machine.mm.fault_in(rest, 48, True))
    machine.check_counts()


def test_a_device_is_told_of_each_page(scattered: tuple[Any, int]) -> None:
    machine, _ = scattered
    machine.run(machine.host.compact())  # one block of 512 holds all: its two pages a block of 8 move elsewhere
    kinds = machine.kinds()
    one = ["notifier_start", "pte_clear", "tlb_flush", "notifier_end", "migrate", "migrated", "free"]
    assert kinds == one * 8
