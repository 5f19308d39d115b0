"""hugetlb: pools and reservations, faults, COW, fork, ranges, and the places of the notifiers (odp.md 1.3-1.5)."""

from __future__ import annotations

from typing import Any

import pytest

from nicemu.driver.umem import best_page_shift
from nicemu.mm import Fault
from nicemu.mm.migrate import migrate_page
from nicemu.mm.page import PG_HUGETLB
from tests.mm.huge_machines import (
    CLEAR,
    END,
    ERAS,
    FLUSH,
    FREE,
    HUGE_SIZE,
    MADV_DONTNEED,
    MADV_PAGEOUT,
    MAP_HUGE_1GB,
    MAP_HUGETLB,
    MAP_NORESERVE,
    MOVE,
    PAGE,
    PAGES,
    PROTECT,
    SET,
    START,
    aligned,
    fill,
    holds,
    hugetlb,
    is_huge,
    is_writable,
    under_lock,
    watch,
)

OLD = ERAS[:4]
GIB = 1 << 30


@pytest.fixture
def machine(make_machine: Any) -> Any:
    return make_machine("v6.12", ram=8192)


def pool(machine: Any) -> tuple[int, int, int]:
    """nr_hugepages, free, reserved."""
    found = machine.host.hugetlb.pools[PAGES]
    return found.nr_hugepages, len(found.free), found.resv_hugepages


# Pools and reservations


def test_a_pool_takes_its_pages_out_of_ram(machine: Any) -> None:
    assert machine.host.hugetlb.set_nr_hugepages(PAGES, 4) == 4
    assert machine.frames.available == 8192 - 4 * PAGES
    assert machine.host.hugetlb.set_nr_hugepages(PAGES, 100) == 16  # as many as there is RAM
    assert machine.host.hugetlb.set_nr_hugepages(PAGES, 1) == 1
    assert machine.frames.available == 8192 - PAGES
    machine.check_counts()


def test_mmap_reserves_and_munmap_gives_back(machine: Any) -> None:
    machine.host.hugetlb.set_nr_hugepages(PAGES, 4)
    at = machine.run(machine.process.mmap(2 * HUGE_SIZE + 1, flags=MAP_HUGETLB))
    assert at % HUGE_SIZE == 0 and pool(machine) == (4, 4, 3)
    machine.run(machine.process.write(at, b"x"))
    assert pool(machine) == (4, 3, 2)
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    assert pool(machine) == (4, 4, 2)
    machine.run(machine.process.exit())
    assert pool(machine) == (4, 4, 0)
    machine.check_counts()


def test_mmap_beyond_the_pool_is_enomem(machine: Any) -> None:
    machine.host.hugetlb.set_nr_hugepages(PAGES, 2)
    machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        machine.run(machine.process.mmap(2 * HUGE_SIZE, flags=MAP_HUGETLB))
    assert pool(machine) == (2, 2, 1)


def test_noreserve_maps_and_gets_sigbus_at_the_fault(machine: Any) -> None:
    machine.host.hugetlb.set_nr_hugepages(PAGES, 1)
    machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB))
    at = machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_NORESERVE))
    with pytest.raises(Fault, match="SIGBUS"):
        machine.run(machine.process.write(at, b"x"))


@pytest.mark.parametrize(("flags", "address"), [(MAP_HUGETLB | 25 << 26, 0), (MAP_HUGETLB | 0x10, PAGE)])
def test_unknown_size_and_odd_address_are_einval(machine: Any, flags: int, address: int) -> None:
    machine.host.hugetlb.set_nr_hugepages(PAGES, 1)
    address += machine.mm.model_window[0] if address else 0
    with pytest.raises(OSError, match="Invalid argument"):
        machine.run(machine.process.mmap(HUGE_SIZE, flags=flags, address=address))


def test_a_page_is_zeroed_before_it_is_used_again(machine: Any) -> None:
    at = hugetlb(machine, 1, pool=1)
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    again = machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB))
    assert machine.run(machine.process.read(again, HUGE_SIZE)) == bytes(HUGE_SIZE)


def test_a_freed_page_is_out_of_every_translation(machine: Any) -> None:
    at = hugetlb(machine)
    head = machine.frame(at)
    generation = int(machine.world.frame[head].generation)
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    row = machine.world.frame[head + 511]
    assert row.generation > generation and row.pointer == machine.frames.graveyard
    assert machine.world.frame_stamp[head + 511].invalidated > 0


# Faults


def test_a_read_maps_it_read_only_and_a_write_in_place(machine: Any) -> None:
    machine.host.hugetlb.set_nr_hugepages(PAGES, 1)
    at = machine.run(machine.process.mmap(HUGE_SIZE, flags=MAP_HUGETLB))
    machine.run(machine.process.read(at, 1))
    head = machine.frame(at)
    assert is_huge(machine.mm, at) and not is_writable(machine.mm, at) and head % PAGES == 0
    assert machine.host.pages.flags[head + 5] & PG_HUGETLB
    machine.kinds()
    machine.run(machine.process.write(at + HUGE_SIZE - 1, b"x"))
    assert machine.kinds() == [] and machine.frame(at) == head and is_writable(machine.mm, at)
    machine.check_counts()


def test_pinned_hugetlb_memory_gives_the_device_2_mib_translations(machine: Any) -> None:
    at = hugetlb(machine, 2)
    found = machine.run(machine.mm.pin(at, 2 * PAGES, True))
    assert best_page_shift(at, found) == 21
    machine.run(machine.process.munmap(at, 2 * HUGE_SIZE))
    assert pool(machine)[:2] == (4, 2)
    machine.mm.unpin(found[:700] >> 1)
    assert pool(machine)[:2] == (4, 3)  # the second page is pinned in part
    machine.mm.unpin(found[700:] >> 1)
    assert pool(machine)[:2] == (4, 4)
    machine.check_counts()


def test_1_gib_page(make_machine: Any) -> None:
    """One fault, 512 leaves, one range; the RAM behind it is touched only where the program writes."""
    pages = 1 << 18
    machine = make_machine("v3.7", ram=pages + 4096)
    assert machine.host.hugetlb.set_nr_hugepages(pages, 2) == 1
    at = machine.run(machine.process.mmap(GIB, flags=MAP_HUGE_1GB))
    machine.run(machine.process.write(at + 5, b"x"))
    head = machine.frame(at)
    assert at % GIB == 0 and head % pages == 0
    assert machine.frame(at + GIB - PAGE) == head + pages - 1 and is_writable(machine.mm, at + GIB - PAGE)
    machine.kinds()
    machine.run(machine.process.munmap(at, GIB))
    assert machine.kinds() == [START, START, CLEAR, END, END, FLUSH, FREE]
    assert machine.host.hugetlb.pools[pages].free == [head]


# Sites


@pytest.mark.parametrize("era", ERAS)
def test_unmap_notifies_inside_the_pair_of_munmap_in_3x(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine)
    held = machine.host.hugetlb.i_mmap_mutex
    watcher = watch(machine, lambda: held.owner is not None)
    machine.run(machine.process.munmap(at, HUGE_SIZE))
    whole = [START, CLEAR, END, FLUSH, FREE]
    assert machine.kinds() == (whole if era == "v6.12" else [START, START, CLEAR, END, END, FLUSH, FREE])
    mutex = [seen for _, _, seen in watcher.seen]
    assert mutex == ([False, False] if era == "v6.12" else [False, True, True, False])
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_parts_of_a_huge_page_are_einval(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine, 2)
    for steps in (
        machine.process.munmap(at, PAGE),
        machine.process.munmap(at + PAGE, 2 * HUGE_SIZE - PAGE),
        machine.process.mprotect(at, HUGE_SIZE + PAGE, 1),
        machine.process.madvise(at, HUGE_SIZE, MADV_PAGEOUT),
        machine.process.madvise(at + PAGE, HUGE_SIZE, MADV_DONTNEED),
    ):
        with pytest.raises(OSError, match="Invalid argument"):
            machine.run(steps)
    assert holds(machine, machine.process, at, 2 * PAGES)


@pytest.mark.parametrize("era", ERAS)
def test_dontneed_is_einval_in_3x_and_rounds_down_in_6_12(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine, 2)
    steps = machine.process.madvise(at, HUGE_SIZE + PAGE, MADV_DONTNEED)
    if era == "v6.12":
        machine.run(steps)
        assert machine.kinds() == [START, CLEAR, END, FLUSH, FREE]
        assert machine.run(machine.process.read(at, 2)) == bytes(2)
        assert machine.run(machine.process.read(at + HUGE_SIZE, 1)) != bytes(1)
    else:
        with pytest.raises(OSError, match="Invalid argument"):
            machine.run(steps)


def shared(make_machine: Any, era: str, pages: int = 2) -> tuple[Any, int, Any]:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine, 1, pool=pages)
    child = machine.run(machine.process.fork())
    machine.kinds()
    return machine, at, child


@pytest.mark.parametrize("era", ERAS)
def test_cow(make_machine: Any, era: str) -> None:
    machine, at, child = shared(make_machine, era)
    watcher = watch(machine)
    machine.run(machine.process.write(at, b"new"))
    assert machine.kinds() == ["wp_fault", START, CLEAR, FLUSH, SET, END]
    assert under_lock(watcher) == [(callback, era.startswith("v3.6")) for callback in ("start", "end")]
    assert machine.run(machine.process.read(at, 3)) == b"new" and holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_the_page_table_lock_is_dropped_for_the_end_of_a_cow_and_taken_again(make_machine: Any, era: str) -> None:
    """The old page outlives the end in every era."""
    machine, at, _ = shared(make_machine, era)
    old = machine.frame(at)
    watcher = watch(machine, lambda: machine.host.pages.refcount[old])
    machine.run(machine.process.write(at, b"new"))
    assert [count for _, _, count in watcher.seen] == [3, 3] and machine.host.pages.refcount[old] == 1


@pytest.mark.parametrize("era", ERAS)
def test_cow_notifies_even_if_the_entry_changed_except_in_v3_6(make_machine: Any, era: str) -> None:
    machine, at, child = shared(make_machine, era)

    def take_away() -> None:
        """As a zap between the copy and the lock would."""
        machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES)[:] |= 2

    watch(machine, take_away)
    if era.startswith("v3.6"):
        machine.scheduler.spawn(later(machine, at), "zap")
    machine.run(machine.process.write(at, b"new"))
    pair = [] if era.startswith("v3.6") else [START, END]
    assert machine.kinds() == ["wp_fault", *pair, FREE] and pool(machine)[1] == 1  # the copy goes back
    machine.check_counts(machine.mm, child.mm)


def later(machine: Any, at: int) -> Any:
    """Change the entry while the page is copied."""
    yield 5000
    machine.mm.page_table.view(at // PAGE, at // PAGE + PAGES)[:] |= 2


@pytest.mark.parametrize("era", ERAS)
def test_childs_cow_without_a_page_is_sigbus(make_machine: Any, era: str) -> None:
    machine, at, child = shared(make_machine, era, pages=1)
    with pytest.raises(Fault, match="SIGBUS"):
        machine.run(child.write(at, b"new"))
    assert holds(machine, child, at) and machine.mm.page_table_lock.owner is None
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_owners_cow_without_a_page_takes_the_childs(make_machine: Any, era: str) -> None:
    """``unmap_ref_private``: the child is told, loses the page, and cannot fault any more."""
    machine, at, child = shared(make_machine, era, pages=1)
    head = machine.frame(at)
    machine.run(machine.process.write(at, b"new"))
    assert [(kind, fields.get("mm")) for kind, fields in machine.events] == [
        (START, 2), (CLEAR, 2), (END, 2), (FLUSH, 2)]  # fmt: skip
    assert machine.frame(at) == head and is_writable(machine.mm, at)
    with pytest.raises(Fault, match="SIGBUS"):
        machine.run(child.read(at, 1))
    machine.check_counts(machine.mm, child.mm)


@pytest.mark.parametrize("era", ERAS)
def test_fork_is_silent_in_3x_and_clears_in_6_12(make_machine: Any, era: str) -> None:
    """The gap of 3.x: the parent's pages are write-protected and no device hears of it."""
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine)
    watcher = watch(machine)
    child = machine.run(machine.process.fork())
    pair = era == "v6.12"
    assert machine.kinds() == ["fork", *[START] * pair, PROTECT, *[END] * pair, FLUSH]
    assert len(watcher.seen) == 2 * pair
    for mm in (machine.mm, child.mm):
        assert is_huge(mm, at) and not is_writable(mm, at) and not is_writable(mm, at + HUGE_SIZE - PAGE)
    assert machine.world.frame_stamp[machine.frame(at)].protected > 0
    machine.check_counts(machine.mm, child.mm)


def test_fork_of_6_12_copies_a_pinned_page(machine: Any) -> None:
    at = hugetlb(machine)
    machine.run(machine.mm.pin(at + PAGE, 1, True))
    child = machine.run(machine.process.fork())
    assert is_writable(machine.mm, at) and child.mm.page_table.get(at // PAGE) >> 12 != machine.frame(at)
    machine.run(machine.process.write(at, b"new"))
    assert holds(machine, child, at)
    machine.check_counts(machine.mm, child.mm)


def test_fork_without_a_page_for_the_copy_is_enomem(machine: Any) -> None:
    at = hugetlb(machine, 1, pool=1)
    machine.run(machine.mm.pin(at, 1, True))
    with pytest.raises(OSError, match="no hugetlb page"):
        machine.run(machine.process.fork())
    assert machine.kinds(START, END) == [START, END, START, END]  # fork, and the child's exit
    assert holds(machine, machine.process, at)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_mprotect_is_one_pair_and_flushes_before_its_end(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine)
    machine.run(machine.process.mprotect(at, HUGE_SIZE, 1))
    assert machine.kinds() == [START, PROTECT, FLUSH, END]
    assert is_huge(machine.mm, at) and not is_writable(machine.mm, at + HUGE_SIZE - PAGE)
    machine.run(machine.process.mprotect(at, HUGE_SIZE, 3))
    machine.run(machine.process.write(at, b"x"))


@pytest.mark.parametrize("era", OLD)
def test_mremap_is_einval_in_3x(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=8192)
    at = hugetlb(machine)
    to = aligned(machine)
    for steps in (machine.process.mremap(at, HUGE_SIZE, HUGE_SIZE, 3, to),
                  machine.process.mremap(at, HUGE_SIZE, 2 * HUGE_SIZE)):  # fmt: skip
        with pytest.raises(OSError, match="Invalid argument"):
            machine.run(steps)
    assert machine.mm.vmas.find(to) is not None  # nothing was unmapped


def test_mremap_of_6_12_moves_and_does_not_grow(machine: Any) -> None:
    at = hugetlb(machine, 2)
    to = aligned(machine, 2 * HUGE_SIZE)
    machine.run(machine.process.munmap(to, 2 * HUGE_SIZE))
    machine.kinds()
    with pytest.raises(OSError, match="Invalid argument"):
        machine.run(machine.process.mremap(at, 2 * HUGE_SIZE, 3 * HUGE_SIZE))
    assert machine.run(machine.process.mremap(at, 2 * HUGE_SIZE, 2 * HUGE_SIZE, 3, to)) == to
    assert machine.kinds() == [START, MOVE, MOVE, FLUSH, END]
    assert holds(machine, machine.process, to, 2 * PAGES) and is_huge(machine.mm, to)
    machine.run(machine.process.munmap(to, 2 * HUGE_SIZE))
    assert pool(machine) == (4, 4, 0)
    machine.check_counts()


@pytest.mark.parametrize("era", ERAS)
def test_never_reclaimed_or_migrated(make_machine: Any, era: str) -> None:
    machine = make_machine(era, ram=PAGES * 4 + 100)
    at = hugetlb(machine, 2)
    assert not machine.run(machine.host.reclaim.evict(machine.mm, at))
    assert not machine.run(migrate_page(machine.mm, at))
    other = machine.run(machine.process.mmap(300 * PAGE))
    fill(machine, other, 300)
    assert machine.host.counters["pswpout"] > 0 and holds(machine, machine.process, at, 2 * PAGES)
    assert is_huge(machine.mm, at)
    machine.check_counts()
