"""Invalidations: wait for the device's interrupt; mutants that do not."""

from __future__ import annotations

import numpy as np
import pytest

from nicemu.abi.command import Command
from nicemu.abi.verbs import Access
from nicemu.driver.mr import Mr
from nicemu.driver.umem_odp import blocks as blocks_of
from nicemu.timeline import Steps
from tests.driver.bench import Bench
from tests.driver.fake_device import INTERRUPT_NS, ZAP_NS

ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.ON_DEMAND
BASE = 0x100000
PAGE = 4096


def mapped(bench: Bench, pages: int = 4, which: tuple[int, ...] = (0, 1, 2, 3)) -> Mr:
    """A region whose pages ``which`` the device has."""
    region = bench.region(ODP, pages=pages)
    for page in which:
        bench.device.rdma_fault(page, region.key, BASE + page * PAGE, 10)
    bench.run()
    assert sorted(bench.frames_of(region)) == list(which)
    bench.device.log.clear()
    return region


@pytest.fixture(params=["v6.12", "v3.7"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(request.param)


def test_it_returns_only_after_the_completion_interrupt(bench: Bench) -> None:
    region = mapped(bench)
    entered = bench.now
    bench.call(bench.mm.zap(BASE + PAGE, BASE + 3 * PAGE))
    assert bench.device.log == [(Command.ZAP_MTT, (region.index, 1, 2) + (0,) * 11)]
    assert sorted(bench.frames_of(region)) == [0, 3]
    costs = bench.costs
    wait = ZAP_NS + INTERRUPT_NS + costs.irq_ns
    assert (
        bench.now - entered
        == costs.invalidate_check_ns + wait + 2 * costs.invalidate_page_ns + costs.invalidate_done_ns
    )
    stages = bench.driver.stages.invalidations[-1]
    times = [stages[name] for name in ("notifier", "command", "drained", "interrupt", "returned")]
    assert times == sorted(times) and stages["drained"] - stages["command"] == ZAP_NS
    assert (stages["pages"], stages["operation"]) == (2, "madvise")
    assert (region.counters.page_invalidations, region.counters.page_invalidations_handled) == (2, 1)


def test_what_the_device_does_not_have_costs_it_nothing(bench: Bench) -> None:
    region = mapped(bench, which=(0,))
    bench.call(bench.mm.zap(BASE + 2 * PAGE, BASE + 4 * PAGE))
    bench.call(bench.mm.zap(0, BASE))
    assert bench.device.log == [] and region.counters.page_invalidations_handled == 0


def test_a_range_larger_than_the_region_takes_its_pages(bench: Bench) -> None:
    region = mapped(bench)
    bench.call(bench.mm.zap(0, 1 << 40))
    assert bench.frames_of(region) == {} and region.umem.mapped == 0  # type: ignore[union-attr]


def test_not_blockable_is_refused_at_once(bench: Bench) -> None:
    region = mapped(bench)
    before = bench.now
    assert bench.call(bench.mm.zap(BASE, BASE + PAGE, blockable=False)) is False
    assert bench.now == before and bench.device.log == [] and len(bench.frames_of(region)) == 4
    assert bench.call(bench.mm.zap(BASE, BASE + PAGE)) is True


@pytest.mark.parametrize(
    ("pages", "first", "blocks"),
    [
        ([], 0, []),
        ([0], 0, [(0, 1)]),
        ([0, 1, 2], 0, [(0, 3)]),
        ([1, 3], 0, [(1, 3)]),  # a hole that reaches no multiple of 8 is cleared through
        ([6, 8], 0, [(6, 3)]),
        ([6, 9], 0, [(6, 1), (9, 1)]),  # 8 is in the hole
        ([0, 40], 3, [(3, 1), (43, 1)]),
        ([0, 5], 6, [(6, 1), (11, 1)]),  # page numbers count, not positions in the range
    ],
)
def test_blocks_end_at_holes_that_reach_a_multiple_of_8(
    pages: list[int], first: int, blocks: list[tuple[int, int]]
) -> None:
    assert blocks_of(np.array(pages, np.int64) + first) == blocks


def test_each_block_is_one_command(bench: Bench) -> None:
    mapped(bench, pages=32, which=(1, 2, 20, 31))
    bench.call(bench.mm.zap(BASE, BASE + 32 * PAGE))
    assert [p[1:3] for _, p in bench.device.log] == [(1, 2), (20, 1), (31, 1)]


def test_a_page_comes_back_after_the_invalidation(bench: Bench) -> None:
    region = mapped(bench)
    old = bench.frames_of(region)[0]
    bench.call(bench.mm.zap(BASE, BASE + PAGE))
    bench.device.rdma_fault(9, region.key, BASE, 10)
    bench.run()
    assert bench.frames_of(region)[0] == bench.mm.table[BASE >> 12] != old


def test_parallel_invalidations_nest(bench: Bench) -> None:
    """Two ranges at once; faults go on only when both have ended."""
    region = mapped(bench)
    threads = [
        bench.spawn(bench.mm.zap(BASE, BASE + 2 * PAGE)),
        bench.spawn(bench.mm.zap(BASE + PAGE, BASE + 4 * PAGE)),
    ]
    bench.device.rdma_fault(9, region.key, BASE, 4 * PAGE)
    bench.run()
    assert all(thread.finished and thread.error is None for thread in threads)
    assert bench.frames_of(region) == {page: bench.mm.table[(BASE >> 12) + page] for page in range(4)}


def test_a_region_made_during_an_invalidation_faults_after_it() -> None:
    """``no_private_counters`` of the 2014 form."""
    bench = Bench("v3.7")
    mapped(bench)
    bench.device.zap_ns = 1_000_000
    zap = bench.spawn(bench.mm.zap(BASE, BASE + 64 * PAGE))
    bench.timeline.advance(lambda: any(opcode == Command.ZAP_MTT for opcode, _ in bench.device.log), bench.now + 10_000)
    notifiers = bench.driver.devices[0].contexts[0].notifiers
    assert notifiers.running == 1  # type: ignore[union-attr]
    from nicemu.driver import mr

    domain = next(iter(bench.driver.pds))
    late = bench.call(mr.register(domain, BASE + 8 * PAGE, PAGE, ODP, BASE + 8 * PAGE))
    assert not zap.finished
    bench.device.rdma_fault(50, late.key, BASE + 8 * PAGE, 10)
    bench.run()
    assert bench.driver.stages.faults[-1]["mm"] >= bench.driver.stages.invalidations[-1]["returned"]
    assert sorted(bench.frames_of(late)) == [0]


def test_the_chain_takes_single_pages() -> None:
    bench = Bench("v3.7")
    region = mapped(bench)
    bench.call(bench.mm.notifiers.invalidate_page(BASE + PAGE + 5))
    assert sorted(bench.frames_of(region)) == [0, 2, 3]
    umem = region.umem
    assert umem is not None and umem.notifier.count == 0  # type: ignore[union-attr]


def test_under_rcu_the_wait_is_reported_and_names_driver_and_operation() -> None:
    bench = Bench("v3.6")
    mapped(bench)
    bench.call(bench.mm.zap(BASE, BASE + PAGE))
    (report,) = bench.mm.host.lockdep.reports.found.values()
    assert (report.operation, report.lock, report.subscriber) == ("madvise", "rcu_read_lock", "umem_odp")


# Mutants


def test_skip_device_wait_returns_while_the_device_still_has_the_page() -> None:
    bench = Bench(mutants=("skip_device_wait",))
    region = mapped(bench)
    bench.call(bench.mm.zap(BASE, BASE + PAGE))
    assert len(bench.frames_of(region)) == 4
    bench.run()
    assert sorted(bench.frames_of(region)) == [1, 2, 3]


@pytest.mark.parametrize("discipline", ["v6.12", "v3.7"])
def test_ignore_fork_protect_keeps_the_pages_at_fork_only(discipline: str) -> None:
    bench = Bench(discipline, mutants=("ignore_fork_protect",))
    region = mapped(bench)
    bench.call(bench.mm.zap(BASE, BASE + PAGE, "fork"))
    assert len(bench.frames_of(region)) == 4
    bench.call(bench.mm.zap(BASE, BASE + PAGE, "munmap"))
    assert sorted(bench.frames_of(region)) == [1, 2, 3]


@pytest.mark.parametrize(("mutants", "stale"), [((), False), (("drop_mutex_before_mtt_write",), True)])
def test_dropping_the_mutex_too_early_leaves_a_stale_frame(mutants: tuple[str, ...], stale: bool) -> None:
    """The invalidation comes between the check and the MTT write, which then brings the old frame."""
    bench = Bench(mutants=mutants)
    region = bench.region(ODP)

    def zap_in_the_window() -> Steps[None]:
        yield bench.mm.fault_ns + 1
        while not (bench.mm.faulted and region.umem.mutex.owner is None):  # type: ignore[union-attr]
            yield 10
        yield 50
        yield from bench.mm.zap(BASE, BASE + PAGE)

    bench.device.rdma_fault(1, region.key, BASE, 10)
    bench.timeline.advance(lambda: bool(bench.driver.stages.faults) or bool(bench.mm.faulted))
    bench.spawn(zap_in_the_window())
    bench.run()
    still = bench.frames_of(region).get(0)
    assert (still is not None and still != bench.mm.table.get(BASE >> 12)) == stale
