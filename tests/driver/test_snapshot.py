"""Registration and PREFETCH_NO_FAULT give the device what is present, without faulting (odp.md 3.1, 3.6)."""

from __future__ import annotations

import errno

import pytest

from nicemu.abi.verbs import Access
from nicemu.driver import DriverError, advise_mr
from nicemu.driver.mr import Mr
from nicemu.timeline import Steps
from tests.driver.bench import Bench

ODP = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND
BASE, PAGE = 0x100000, 4096


def present(bench: Bench, *pages: int) -> None:
    for page in pages:
        bench.mm.table[(BASE >> 12) + page] = 500 + page


def test_registration_maps_what_is_present() -> None:
    bench = Bench()
    present(bench, 1, 2, 7)
    region = bench.region(ODP, pages=8)
    assert bench.frames_of(region) == {1: 501, 2: 502, 7: 507} and bench.mm.faulted == []
    assert region.umem.mapped == 3 and region.counters.page_faults == 0  # type: ignore[union-attr]


def test_registration_in_the_2014_form_maps_nothing() -> None:
    bench = Bench("v3.7")
    present(bench, 1)
    assert bench.frames_of(bench.region(ODP, pages=8)) == {}


def test_what_was_mapped_so_is_invalidated_as_always() -> None:
    bench = Bench()
    present(bench, 0, 1)
    region = bench.region(ODP, pages=2)
    bench.call(bench.mm.zap(BASE, BASE + PAGE))
    assert bench.frames_of(region) == {1: 501}


@pytest.mark.parametrize("flush", [0, advise_mr.FLUSH])
def test_prefetch_without_faulting(flush: int) -> None:
    bench = Bench()
    region = bench.region(ODP, pages=8)
    present(bench, 2, 5)
    advice = (BASE + PAGE, 4 * PAGE, region.key)
    bench.call(advise_mr.advise(region.pd, advise_mr.PREFETCH_NO_FAULT, flush, (advice,)))
    bench.run()
    assert bench.frames_of(region) == {2: 502} and bench.mm.faulted == [] and region.counters.page_prefetch == 1


def test_an_invalidation_during_the_snapshot_makes_it_look_again() -> None:
    bench = Bench()
    present(bench, 0, 1)
    look = bench.mm.snapshot
    looked: list[int] = []

    def snapshot(address: int, pages: int) -> Steps[list]:
        runs = yield from look(address, pages)
        looked.append(len(runs))
        if len(looked) == 1:
            yield from bench.mm.zap(BASE, BASE + PAGE)
        return runs

    bench.mm.snapshot = snapshot  # type: ignore[method-assign]
    region: Mr = bench.region(ODP, pages=2)
    assert looked == [2, 1] and bench.frames_of(region) == {1: 501}


@pytest.mark.parametrize(
    "advice, flags, number",
    [(3, 0, errno.EOPNOTSUPP), (-1, 0, errno.EOPNOTSUPP), (0, 2, errno.EINVAL), (3, 2, errno.EINVAL)],
)
def test_advice_that_is_none_and_flags_that_are_none(advice: int, flags: int, number: int) -> None:
    bench = Bench()
    region = bench.region(ODP)
    with pytest.raises(DriverError) as caught:
        bench.call(advise_mr.advise(region.pd, advice, flags, ((BASE, PAGE, region.key),)))
    assert caught.value.errno == number


def test_which_advice_is_refused_for_which_region() -> None:
    bench = Bench()
    region, read_only, pinned = (bench.region(access) for access in (ODP, Access.ON_DEMAND, Access.LOCAL_WRITE))
    cases = [
        (region.pd, 0, (BASE, PAGE, region.key + 1), errno.ENOENT),
        (pinned.pd, 0, (BASE, PAGE, pinned.key), errno.ENOENT),
        (read_only.pd, 0, (BASE, PAGE, region.key), errno.EPERM),
        (read_only.pd, 1, (BASE, PAGE, read_only.key), errno.EPERM),
        (region.pd, 0, (BASE - 1, PAGE, region.key), errno.EFAULT),
        (region.pd, 0, (BASE, 4 * PAGE + 1, region.key), errno.EFAULT),
    ]
    for domain, advice, sge, number in cases:
        for flags in (0, advise_mr.FLUSH):
            with pytest.raises(DriverError) as caught:
                bench.call(advise_mr.advise(domain, advice, flags, (sge,)))
            assert caught.value.errno == number, (advice, sge)


def test_advice_about_nothing_is_taken_whatever_it_is() -> None:
    bench = Bench()
    for advice in (0, 3):
        bench.call(advise_mr.advise(bench.region(ODP).pd, advice, advise_mr.FLUSH, ()))
