"""``force_odp``: every region that a kernel could page on demand is; the others stay as they are."""

from __future__ import annotations

import errno

import pytest

from nicemu.abi.command import MkeyFlag, Rereg
from nicemu.abi.verbs import Access
from nicemu.driver import DriverError, dm, mr, pd, rereg
from tests.driver.bench import Bench

RW = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
BASE, PAGE = 0x100000, 4096


@pytest.fixture
def bench() -> Bench:
    return Bench(force_odp=True)


def reregister(bench: Bench, region: mr.Mr, flags: int, access: int = 0, address: int = 0, length: int = 0) -> None:
    bench.call(rereg.reregister(region, rereg.Wanted(flags, None, address, length, address, access)))


def test_every_region_is_on_demand(bench: Bench) -> None:
    region = bench.region(RW)
    assert region.on_demand and bench.frames_of(region) == {} and bench.mm.pinned == {}


def test_absent_memory_is_no_error_until_it_is_touched(bench: Bench) -> None:
    bench.mm.absent.add(BASE >> 12)
    assert bench.device.mkeys[bench.region(RW).index].flags == MkeyFlag.ODP


def test_huge_pages_cannot_be_on_demand_and_stay_pinned(bench: Bench) -> None:
    region = bench.region(RW | Access.HUGETLB)
    assert not region.on_demand and len(bench.frames_of(region)) == 4


def test_device_memory_and_null_regions_have_no_pages(bench: Bench) -> None:
    opened = bench.open()
    domain, block = pd.allocate(opened), bench.call(dm.allocate(opened, 256))
    region = bench.call(mr.register_dm(domain, block, 0, 64, RW | Access.ZERO_BASED))
    assert bench.device.mkeys[region.index].flags == MkeyFlag.DEVICE_MEMORY
    assert bench.device.mkeys[bench.call(mr.register_null(domain)).index].flags == MkeyFlag.NULL


def test_the_whole_address_space_must_be_asked_for(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    with pytest.raises(DriverError) as caught:
        bench.call(mr.register(domain, 0, mr.WHOLE_ADDRESS_SPACE, RW, 0))
    assert caught.value.errno == errno.EINVAL
    assert bench.call(mr.register(domain, 0, mr.WHOLE_ADDRESS_SPACE, RW | Access.ON_DEMAND, 0)).implicit


def test_rereg_of_the_access_keeps_it_on_demand(bench: Bench) -> None:
    region = bench.region(RW)
    reregister(bench, region, Rereg.ACCESS, access=Access.LOCAL_WRITE)
    assert region.on_demand and not region.access & Access.REMOTE_WRITE


def test_rereg_of_the_access_keeps_huge_pages_pinned(bench: Bench) -> None:
    region = bench.region(RW | Access.HUGETLB)
    reregister(bench, region, Rereg.ACCESS, access=Access.LOCAL_WRITE)
    assert not region.on_demand and len(bench.frames_of(region)) == 4


@pytest.mark.parametrize("flags", [Rereg.TRANSLATION, Rereg.TRANSLATION | Rereg.ACCESS])
def test_new_memory_is_on_demand_as_well(bench: Bench, flags: int) -> None:
    region = bench.region(RW)
    reregister(bench, region, flags, access=RW, address=0x200000, length=2 * PAGE)
    assert region.on_demand and bench.frames_of(region) == {} and not any(bench.mm.pinned.values())


def test_new_memory_of_huge_pages_is_pinned(bench: Bench) -> None:
    region = bench.region(RW)
    flags = Rereg.TRANSLATION | Rereg.ACCESS
    reregister(bench, region, flags, access=RW | Access.HUGETLB, address=0x200000, length=2 * PAGE)
    assert not region.on_demand and len(bench.frames_of(region)) == 2


def test_without_it_a_region_says_by_itself_whether_it_is_on_demand() -> None:
    bench = Bench()
    region = bench.region(RW)
    assert not region.on_demand
    with pytest.raises(DriverError) as caught:
        reregister(bench, region, Rereg.ACCESS, access=RW | Access.ON_DEMAND)
    assert caught.value.errno == errno.EOPNOTSUPP
