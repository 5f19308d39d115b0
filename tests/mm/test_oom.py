"""The OOM killer, its report, its reaper, and RLIMIT_MEMLOCK."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from nicemu.mm import memlock
from nicemu.mm.interval import IntervalNotifier
from nicemu.mm.memcg import Memcg
from nicemu.mm.memlock import Memlock
from nicemu.mm.mlock import do_mlock, do_munlock
from nicemu.mm.notifier import NotifierRange, NotifierSubscriber
from nicemu.mm.oom_kill import Killed, candidates, oom_kill_process, select_bad_process
from nicemu.mm.page import Fault
from nicemu.timeline.host import Sleep, Steps

PAGE = 4096
SECOND = 1_000_000_000


def written(machine: Any, pages: int, process: Any = None) -> int:
    """Address of so many pages with bytes in them."""
    process = process or machine.process
    at = int(machine.run(process.mmap(pages * PAGE)))
    machine.run(process.write(at, b"x" * (pages * PAGE)))
    return at


@pytest.fixture
def no_swap(make_machine: Callable[..., Any]) -> Any:
    """256 pages of RAM and no swap."""
    return make_machine(ram=256, swap=0)


class Refuses(IntervalNotifier):
    """A driver that has to sleep, as RDMA's."""

    name = "sleeper"

    def invalidate(self, range: NotifierRange, cur_seq: int) -> Steps[bool]:
        if not range.blockable:
            return False
        self.set_seq(cur_seq)
        yield Sleep(1000)
        return True


# Who is chosen, and what is said ------------------------------------------------------------------------------------


def test_score_is_rss_swap_and_page_tables(machine: Any) -> None:
    at = written(machine, 100)
    machine.run(machine.process.madvise(at, 40 * PAGE, 21))
    ((mm, has, score),) = candidates(machine.host, None)
    assert mm is machine.mm and (has.rss, has.swap, has.tables) == (60, 40, 4)
    assert score == 104


def test_score_is_adjusted_by_thousandths_of_all_memory(machine: Any) -> None:
    written(machine, 100)
    machine.mm.oom_score_adj = 500
    assert candidates(machine.host, None)[0][2] == 104 + 500 * (8192 // 1000)


def test_the_largest_is_chosen_unless_it_may_not(machine: Any) -> None:
    child = machine.run(machine.process.fork())
    written(machine, 10, child)
    written(machine, 20)
    assert select_bad_process(candidates(machine.host, None))[0] is machine.mm
    machine.mm.oom_score_adj = -1000
    assert select_bad_process(candidates(machine.host, None))[0] is child.mm
    child.mm.oom_score_adj = -1000
    assert select_bad_process(candidates(machine.host, None)) is None


def test_report_names_pinned_pages_and_who_pinned_them(no_swap: Any) -> None:
    at = written(no_swap, 200)
    memlock.charge_pinned(no_swap.mm, 150, "MR 3 of nicemu0")
    no_swap.run(no_swap.mm.pin(at, 150, True))
    said: list[str] = []
    no_swap.host.console = said.append
    with pytest.raises(Fault, match="out of memory"):
        written(no_swap, 57)
    (report,) = no_swap.host.oom_reports
    assert said == [str(report)]
    assert (report.ram.pinned, report.ram.anon, report.ram.other) == (150, 106, 0)
    assert "pins  MR 3 of nicemu0: 150 pages of process 1 (program)" in report.text
    assert report.headline.startswith("Out of memory: Spared") and "pinned:600kB" in report.headline


def test_report_counts_each_page_once(machine: Any) -> None:
    from nicemu.mm.oom_report import Ram

    at = written(machine, 8)
    machine.run(machine.mm.pin(at, 3, True))
    machine.run(machine.process.munmap(at, PAGE))  # pinned, and in nobody's page table
    assert Ram.of(machine.host) == Ram(pinned=3, mlocked=0, file=0, anon=5, other=0)


# What dies ----------------------------------------------------------------------------------------------------------


def test_a_forked_child_dies_and_the_allocation_goes_on(no_swap: Any) -> None:
    child = no_swap.run(no_swap.process.fork())
    written(no_swap, 200, child)
    at = written(no_swap, 100)
    assert no_swap.run(no_swap.process.read(at, 4)) == b"xxxx"
    assert no_swap.host.counters["oom_kill"] == 1 and child.mm.number not in no_swap.host.address_spaces
    with pytest.raises(Killed, match="was killed: Out of memory"):
        no_swap.run(child.read(at, 1))
    no_swap.run(child.exit())  # a zombie's exit is nothing
    no_swap.check_counts()


def test_the_program_lives_and_its_request_fails(no_swap: Any) -> None:
    at = written(no_swap, 200)
    with pytest.raises(Fault) as caught:
        written(no_swap, 100)
    assert caught.value.errno == errno.ENOMEM and not no_swap.mm.killed
    assert no_swap.run(no_swap.process.read(at, 4)) == b"xxxx"


def test_the_program_killed_is_told_so_by_every_call(no_swap: Any) -> None:
    no_swap.host.profile.oom_kills_program = True
    at = written(no_swap, 200)
    with pytest.raises(Fault, match="was killed"):
        written(no_swap, 100)
    for steps in (no_swap.process.mmap(PAGE), no_swap.mm.fault_in(at, 1, True), no_swap.process.munmap(at, PAGE)):
        with pytest.raises(Killed) as caught:
            no_swap.run(steps)
        assert caught.value.errno == errno.ENOMEM


def test_nobody_else_is_killed_while_a_victim_dies(no_swap: Any) -> None:
    """Two threads out of memory at once: one victim, both go on."""
    child = no_swap.run(no_swap.process.fork())
    written(no_swap, 200, child)
    threads = []
    for _ in range(2):
        at = no_swap.run(no_swap.process.mmap(50 * PAGE))
        threads.append(no_swap.scheduler.spawn(no_swap.mm.fault_in(at, 50, True), "fault"))
    no_swap.timeline.advance(lambda: all(thread.finished for thread in threads))
    assert len(no_swap.host.oom_reports) == 1 and not any(thread.error for thread in threads)


def test_group_out_of_memory_kills_in_the_group(no_swap: Any) -> None:
    group = Memcg(no_swap.host, "small", 64)
    first = no_swap.run(no_swap.process.fork())
    second = no_swap.run(no_swap.process.fork())
    first.mm.memcg = second.mm.memcg = group
    written(no_swap, 150)  # larger, and outside
    written(no_swap, 40, first)
    written(no_swap, 30, second)
    assert first.mm.killed.startswith("Memory cgroup out of memory") and not second.mm.killed
    assert group.usage == 30


def test_pin_of_more_than_ram_reclaims_then_fails_and_holds_nothing(make_machine: Callable[..., Any]) -> None:
    machine = make_machine(ram=256, swap=4096)
    other = written(machine, 100)
    at = machine.run(machine.process.mmap(512 * PAGE))
    with pytest.raises(Fault) as caught:
        machine.run(machine.mm.pin(at, 512, True))
    assert caught.value.errno == errno.ENOMEM
    assert len(machine.mm.frames_in(other, other + 100 * PAGE)) == 0 < machine.host.swap.used  # reclaim came first
    assert machine.host.oom_reports[0].ram.pinned > 200
    assert not machine.host.pages.all_pins.any()
    machine.run(machine.process.exit())
    assert machine.frames.allocated == 0


# The reaper ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hung(make_machine: Callable[..., Any]) -> Callable[[str], Any]:
    """A machine whose forked child was killed and cannot exit: somebody else's subscriber never lets go."""

    class Stuck(NotifierSubscriber):
        name = "stuck"

        def release(self, mm: Any) -> Steps[None]:
            yield Sleep(100 * SECOND)

    def make(discipline: str = "v6.12") -> Any:
        machine = make_machine(discipline)
        machine.child = machine.run(machine.process.fork())
        machine.at = written(machine, 64, machine.child)
        machine.run(machine.child.mm.notifiers.register(Stuck()))
        return machine

    return make


def test_reaper_frees_what_a_hung_exit_does_not(hung: Any) -> None:
    machine = hung()
    oom_kill_process(machine.child.mm, "Out of memory")
    dying = machine.child.mm.dying
    machine.timeline.pass_time(SECOND)
    assert machine.frames.allocated == 64 and not dying.done
    machine.timeline.pass_time(2 * SECOND)
    assert machine.frames.allocated == 0 and dying.done and machine.child.mm.oom_skip


def test_reaper_notifies_in_order_and_flushes_last(hung: Any) -> None:
    machine = hung()
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.kinds()
    machine.timeline.pass_time(3 * SECOND)
    events = [kind for kind, fields in machine.events if fields.get("operation") == "oom_reap"]
    assert events == ["notifier_start", "pte_clear", "notifier_end", "tlb_flush", "free"]


def test_reaper_skips_areas_whose_notifier_would_sleep_and_gives_up(hung: Any) -> None:
    machine = hung()
    other = written(machine, 8, machine.child)
    machine.child.mm.intervals.insert(Refuses(), machine.at, 64 * PAGE)
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.timeline.pass_time(5 * SECOND)
    assert machine.host.counters["oom_reap_skipped"] == 10 and machine.host.counters["oom_reap_gave_up"] == 1
    mm = machine.child.mm
    assert len(mm.frames_in(machine.at, machine.at + 64 * PAGE)) == 64
    assert len(mm.frames_in(other, other + 8 * PAGE)) == 0
    assert mm.oom_skip and mm.dying is None  # the OOM killer looks elsewhere


def test_refused_start_leaves_no_invalidation_open(hung: Any) -> None:
    """A refusal ends what it began (odp.md 2): readers of the region are not kept waiting."""
    machine = hung()
    subscription = Refuses()
    machine.child.mm.intervals.insert(subscription, machine.at, 64 * PAGE)
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.timeline.pass_time(5 * SECOND)
    assert machine.child.mm.intervals.active_invalidate_ranges == 0
    machine.run(subscription.read_begin())


def test_reaper_waits_for_mmap_lock_only_by_trying_again(hung: Any) -> None:
    machine = hung()
    lock = machine.child.mm.mmap_lock

    def holder() -> Steps[None]:
        yield from lock.acquire_write(machine.host.thread)
        yield Sleep(int(2.35 * SECOND))
        lock.release(machine.host.thread)

    machine.scheduler.spawn(holder(), "holder")
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.timeline.pass_time(int(2.34 * SECOND))
    assert machine.frames.allocated == 64
    machine.timeline.pass_time(SECOND)
    assert machine.frames.allocated == 0


@pytest.mark.parametrize("era", ["v3.6+srcu", "v3.7"])
def test_3_x_has_no_reaper(hung: Any, era: str) -> None:
    machine = hung(era)
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.timeline.pass_time(10 * SECOND)
    assert machine.frames.allocated == 64


def test_reaped_pinned_pages_stay_the_devices(hung: Any) -> None:
    machine = hung()
    frames = machine.run(machine.child.mm.pin(machine.at, 16, True)) >> 1
    oom_kill_process(machine.child.mm, "Out of memory")
    machine.timeline.pass_time(3 * SECOND)
    assert machine.frames.allocated == 16 and all(machine.host.pages.mapcounts[frames] == 0)
    machine.child.mm.unpin(frames)
    assert machine.frames.allocated == 0


# RLIMIT_MEMLOCK -----------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(machine: Any) -> Any:
    """An address space that may pin and lock 64 pages."""
    machine.mm.memlock = Memlock(limit=64)
    return machine.mm


def test_pins_up_to_the_limit_and_not_beyond(limited: Any) -> None:
    memlock.charge_pinned(limited, 40, "a")
    memlock.charge_pinned(limited, 24, "b")
    with pytest.raises(Fault) as caught:
        memlock.charge_pinned(limited, 1, "c")
    assert caught.value.errno == errno.ENOMEM
    assert caught.value.strerror == "RLIMIT_MEMLOCK is 256 KiB: 4 KiB wanted, 256 KiB pinned"
    assert limited.memlock.pinned_vm == 64 and limited.memlock.pins == {"a": 40, "b": 24}
    memlock.uncharge_pinned(limited, 40, "a")
    memlock.charge_pinned(limited, 1, "c")
    assert limited.memlock.pins == {"b": 24, "c": 1}


def test_pinned_and_locked_are_counted_apart(machine: Any, limited: Any) -> None:
    memlock.charge_pinned(limited, 64, "a")
    at = machine.run(machine.process.mmap(65 * PAGE))
    machine.run(do_mlock(limited, at, at + 64 * PAGE))
    with pytest.raises(Fault, match="256 KiB locked") as caught:
        machine.run(do_mlock(limited, at, at + 65 * PAGE))  # of which one is not locked yet
    assert caught.value.errno == errno.ENOMEM
    machine.run(do_munlock(limited, at, at + PAGE))
    machine.run(do_mlock(limited, at + PAGE, at + 65 * PAGE))
    assert (limited.memlock.pinned_vm, limited.locked_vm) == (64, 64)


def test_cap_ipc_lock_is_not_bound(limited: Any) -> None:
    limited.memlock.capable = True
    memlock.charge_pinned(limited, 1000, "a")


def test_limit_of_zero_is_eperm(limited: Any) -> None:
    limited.memlock.limit = 0
    for steps in (lambda: memlock.charge_pinned(limited, 1, "a"), lambda: memlock.check_locked(limited, 1)):
        with pytest.raises(Fault) as caught:
            steps()
        assert caught.value.errno == errno.EPERM


def test_limit_comes_from_the_profile(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    machine.host.profile.rlimit_memlock_bytes = 8 << 20
    child = machine.run(machine.process.fork())
    assert child.mm.memlock.limit == 2048 and child.mm.memlock.pinned_vm == 0
