"""Windows, re-registration, null regions, device memory, contiguous pages, zero-based regions: the driver's part."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nicemu.abi.command import Command, MkeyFlag, Rereg, Status
from nicemu.abi.verbs import Access
from nicemu.config import NicProfile
from nicemu.driver import DriverError, context, dm, mr, mw, pd, rereg
from nicemu.driver.umem import best_page_shift, huge_blocks
from tests.driver.bench import Bench

RW = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
ODP = RW | Access.ON_DEMAND
BASE, PAGE = 0x100000, 4096


def fails(call: Callable[[], Any]) -> int | None:
    with pytest.raises(DriverError) as caught:
        call()
    return caught.value.errno


# Windows


@pytest.mark.parametrize(("kind", "flag"), [(1, MkeyFlag.MW_TYPE_1), (2, MkeyFlag.MW_TYPE_2)])
def test_a_window_is_a_key_of_its_type_without_range(bench: Bench, kind: int, flag: int) -> None:
    domain = pd.allocate(bench.open())
    window = bench.call(mw.allocate(domain, kind))
    made = bench.device.mkeys[window.index]
    assert (made.key, made.length, made.access, made.flags) == (window.key, 0, 0, flag)
    assert domain.users == 1
    bench.call(mw.deallocate(window))
    assert bench.device.mkeys == {} and domain.users == 0 and len(bench.driver.mws) == 0


def test_a_window_of_no_type_is_refused(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    assert fails(lambda: bench.call(mw.allocate(domain, 3))) == errno.EINVAL
    assert domain.users == 0 and bench.device.log == []


def test_there_are_max_mw_windows() -> None:
    bench = Bench(profile=NicProfile(max_mw=2))
    domain = pd.allocate(bench.open())
    windows = [bench.call(mw.allocate(domain, 1)) for _ in range(2)]
    assert fails(lambda: bench.call(mw.allocate(domain, 1))) == errno.ENOMEM
    bench.call(mw.deallocate(windows[0]))
    assert bench.call(mw.allocate(domain, 1)).handle


def test_the_next_key_of_an_index_differs_from_what_the_program_made_of_it(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    device = bench.driver.devices[0]
    window = bench.call(mw.allocate(domain, 1))
    bench.device.last_key = window.key | 0x42
    bench.call(mw.deallocate(window))
    assert device.key_variants[window.index] == 0x42


def test_a_region_that_the_device_does_not_let_go_stays(bench: Bench) -> None:
    """Windows are bound to it: EINVAL, and everything is as it was."""
    for access in (RW, ODP):
        region = bench.region(access)
        bench.device.refuse[Command.DESTROY_MKEY] = Status.BAD_STATE
        assert fails(lambda r=region: bench.call(mr.deregister(r))) == errno.EINVAL  # type: ignore[misc]
        bench.device.refuse.clear()
        assert bench.driver.mrs.get(region.handle) is region
        bench.call(mr.deregister(region))
    assert set(bench.mm.pinned.values()) == {0} and not bench.driver.devices[0].odp_mkeys


# Re-registration


def wanted(flags: int, **fields: Any) -> rereg.Wanted:
    return rereg.Wanted(flags, **dict(pd=None, address=0, length=0, iova=0, access=0) | fields)


def test_rereg_of_the_access_tells_the_device(bench: Bench) -> None:
    region = bench.region(RW)
    bench.call(rereg.reregister(region, wanted(Rereg.ACCESS, access=1)))
    assert bench.device.mkeys[region.index].access == 1 == region.access
    assert len(bench.frames_of(region)) == 4


def test_rereg_of_the_pd_moves_the_use(bench: Bench) -> None:
    region = bench.region(RW)
    old, new = region.pd, pd.allocate(region.pd.context)
    bench.call(rereg.reregister(region, wanted(Rereg.PD, pd=new)))
    assert (old.users, new.users, region.pd) == (0, 1, new)
    assert bench.device.mkeys[region.index].pd == new.number
    bench.call(mr.deregister(region))
    assert new.users == 0


@pytest.mark.parametrize("access", [RW, ODP])
def test_rereg_of_the_memory_gives_up_the_old_before_the_new(bench: Bench, access: int) -> None:
    region = bench.region(access)
    old = dict(bench.mm.table)
    key = region.key
    memory = wanted(Rereg.TRANSLATION, address=0x200000, length=2 * PAGE, iova=0x200000)
    bench.device.log.clear()
    bench.call(rereg.reregister(region, memory))
    assert bench.device.log[0][0] == Command.MODIFY_MKEY
    made = bench.device.mkeys[region.index]
    assert (made.base, made.length, made.key) == (0x200000, 2 * PAGE, key)
    if access == RW:
        assert [bench.mm.pinned[frame] for frame in old.values()] == [0] * 4
        assert sorted(bench.frames_of(region)) == [0, 1]
    else:
        bench.device.rdma_fault(5, key, 0x200000 + PAGE, 8)
        bench.run()
        assert sorted(bench.frames_of(region)) == [1]
        bench.call(bench.mm.zap(BASE, BASE + 4 * PAGE))
        assert sorted(bench.frames_of(region)) == [1]
        bench.call(bench.mm.zap(0x200000, 0x200000 + 2 * PAGE))
        assert bench.frames_of(region) == {}
    bench.call(mr.deregister(region))
    assert not any(bench.mm.pinned.values()) and len(list(bench.mm.intervals)) == 0


def test_after_memory_that_is_not_there_the_key_opens_nothing(bench: Bench) -> None:
    region = bench.region(RW)
    bench.mm.absent.add(0x200000 >> 12)
    memory = wanted(Rereg.TRANSLATION, address=0x200000, length=PAGE, iova=0x200000)
    assert fails(lambda: bench.call(rereg.reregister(region, memory))) == errno.EFAULT
    assert bench.device.mkeys[region.index].length == 0 and not any(bench.mm.pinned.values())
    assert fails(lambda: bench.call(rereg.reregister(region, memory))) == errno.EOPNOTSUPP
    bench.call(mr.deregister(region))
    assert bench.device.mkeys == {} and region.pd.users == 0


def test_pages_held_for_reading_are_held_anew_for_writing(bench: Bench) -> None:
    region = bench.region(Access.REMOTE_READ)
    bench.device.log.clear()
    bench.call(rereg.reregister(region, wanted(Rereg.ACCESS, access=RW)))
    assert Command.UPDATE_MTT in [opcode for opcode, _ in bench.device.log] and region.writable
    assert set(bench.mm.pinned.values()) == {1}


@pytest.mark.parametrize(
    ("want", "number"),
    [
        (wanted(0), errno.EINVAL),
        (wanted(8), errno.EINVAL),
        (wanted(Rereg.PD), errno.EINVAL),
        (wanted(Rereg.ACCESS, access=2), errno.EINVAL),
        (wanted(Rereg.TRANSLATION), errno.EINVAL),
        (wanted(Rereg.ACCESS, access=ODP), errno.EOPNOTSUPP),
    ],
)
def test_what_rereg_refuses_changes_nothing(bench: Bench, want: rereg.Wanted, number: int) -> None:
    region = bench.region(RW)
    bench.device.log.clear()
    assert fails(lambda: bench.call(rereg.reregister(region, want))) == number
    assert bench.device.log == [] and (region.access, region.length) == (RW, 4 * PAGE)


def test_a_device_that_refuses_leaves_the_region_as_it_was(bench: Bench) -> None:
    """Windows are bound to it."""
    for access in (RW, ODP):
        region = bench.region(access)
        bench.device.refuse[Command.MODIFY_MKEY] = Status.BAD_STATE
        memory = wanted(Rereg.TRANSLATION, address=0x200000, length=PAGE, iova=0x200000)
        assert fails(lambda r=region, m=memory: bench.call(rereg.reregister(r, m))) == errno.EINVAL  # type: ignore[misc]
        bench.device.refuse.clear()
        assert (region.address, region.length, region.pd.users) == (BASE, 4 * PAGE, 1)
        bench.call(mr.deregister(region))
        assert bench.device.mkeys == {}


# Null, zero-based, iova


def test_a_null_region_has_a_key_and_nothing_else(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    region = bench.call(mr.register_null(domain))
    made = bench.device.mkeys[region.index]
    assert (made.flags, made.access) == (MkeyFlag.NULL, Access.LOCAL_WRITE) and bench.mm.pinned == {}
    bench.call(mr.deregister(region))
    assert domain.users == 0 and bench.device.mkeys == {}


def test_a_zero_based_region_begins_at_0(bench: Bench) -> None:
    region = bench.region(RW | Access.ZERO_BASED, address=BASE + 0x123, length=6000)
    made = bench.device.mkeys[region.index]
    assert (made.base, made.length, made.skew) == (0, 6000, BASE + 0x123 & 0x1FFFFF)
    assert sorted(bench.frames_of(region)) == [0, 1]


def test_a_fault_of_a_zero_based_region_is_translated_to_its_addresses(bench: Bench) -> None:
    region = bench.region(ODP | Access.ZERO_BASED, address=BASE + 0xF00, length=4 * PAGE)
    bench.device.rdma_fault(5, region.key, 0x100, 8)  # the first byte of the second page
    bench.run()
    assert bench.mm.faulted == [(BASE + PAGE, 1, True)] and sorted(bench.frames_of(region)) == [1]
    bench.device.rdma_fault(6, region.key, 0x0F8, 4 * PAGE, pages=2)  # the end of the first, two pages at most
    bench.run()
    assert bench.mm.faulted[-1] == (BASE, 2, True)


def test_the_iova_may_lie_anywhere_in_a_page(bench: Bench) -> None:
    region = bench.region(ODP, iova=0x7001)
    bench.device.rdma_fault(5, region.key, 0x7001 + PAGE, 8)
    bench.run()
    assert bench.mm.faulted == [(BASE + PAGE, 1, True)]


# Contiguous pages


def frames(first: int, count: int, writable: int = 1) -> np.ndarray:
    return np.arange(first, first + count) << 1 | writable


@pytest.mark.parametrize(
    ("what", "address", "list_", "shift"),
    [
        ("aligned", 0, frames(512, 1024), 21),
        ("not from a multiple of 2 MiB", 0, frames(513, 1024), 12),
        ("alike in their offset", 5 * PAGE, frames(1024 + 5, 700), 21),
        ("a break within 2 MiB", 0, np.concatenate([frames(512, 100), frames(2048 + 100, 924)]), 12),
        ("a break between two of them", 0, np.concatenate([frames(512, 512), frames(4096, 512)]), 21),
        ("one page of them is read-only", 0, np.concatenate([frames(512, 511), frames(1023, 1, 0)]), 12),
        ("a break after a mailbox full", 0, np.concatenate([frames(0, 8192), frames(9216, 512)]), 21),
        ("a break one page later", 0, np.concatenate([frames(0, 8193), frames(9217, 511)]), 12),
        ("less than 2 MiB", 0, frames(512, 511), 12),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_which_pages_the_device_gets(what: str, address: int, list_: np.ndarray, shift: int) -> None:
    assert best_page_shift(address, list_) == shift


def test_a_block_is_named_by_its_first_page_inside_or_not() -> None:
    assert list(huge_blocks(5 * PAGE, frames(1024 + 5, 700))) == [1024 << 1 | 1, 1536 << 1 | 1]


def test_contiguous_pinned_memory_takes_one_translation_for_2_mib(bench: Bench) -> None:
    bench.mm._next = (1 << 20) + 5 - 1
    region = bench.region(RW, pages=1000, address=(1 << 30) + 5 * PAGE)
    made = bench.device.mkeys[region.index]
    assert made.page_shift == 21 and made.skew == 0
    assert bench.frames_of(region) == {0: 1 << 20, 1: (1 << 20) + 512}
    assert len(bench.mm.pinned) == 1000


# Device memory


def test_device_memory_is_cleared_and_reached_by_words(bench: Bench) -> None:
    opened = bench.open()
    block = bench.call(dm.allocate(opened, 100))
    assert not dm.window(block, 0, 100).any()
    dm.window(block, 8, 4)[:] = 7
    assert list(bench.device.memory[block.offset + 6 : block.offset + 14]) == [0, 0, 7, 7, 7, 7, 0, 0]
    for offset, length, number in ((2, 4, errno.EINVAL), (0, 6, errno.EINVAL), (100, 4, errno.EFAULT), (-4, 4, 14)):
        assert fails(lambda o=offset, n=length: dm.window(block, o, n)) == number  # type: ignore[misc]


def test_device_memory_runs_out_and_comes_back(bench: Bench) -> None:
    opened = bench.open()
    total = bench.device.profile.max_dm_size
    block = bench.call(dm.allocate(opened, total))
    assert fails(lambda: bench.call(dm.allocate(opened, 4))) == errno.ENOMEM
    bench.call(dm.free(block))
    assert bench.call(dm.allocate(opened, total, 12)).offset == 0


@pytest.mark.parametrize(("length", "align"), [(0, 0), (8, 13)])
def test_device_memory_of_bad_shape(bench: Bench, length: int, align: int) -> None:
    opened = bench.open()
    assert fails(lambda: bench.call(dm.allocate(opened, length, align))) == errno.EINVAL


def test_device_memory_is_busy_while_a_region_of_it_exists(bench: Bench) -> None:
    opened = bench.open()
    domain = pd.allocate(opened)
    block = bench.call(dm.allocate(opened, 128))
    region = bench.call(mr.register_dm(domain, block, 64, 64, RW | Access.ZERO_BASED))
    assert bench.device.mkeys[region.index].flags == MkeyFlag.DEVICE_MEMORY
    assert fails(lambda: bench.call(dm.free(block))) == errno.EBUSY
    bench.call(mr.deregister(region))
    bench.call(dm.free(block))
    assert len(bench.driver.dms) == 0


@pytest.mark.parametrize(
    ("offset", "length", "access"),
    [(0, 64, RW), (65, 64, RW | Access.ZERO_BASED), (-4, 8, RW | Access.ZERO_BASED), (0, 8, ODP | Access.ZERO_BASED)],
)
def test_regions_of_device_memory_that_are_refused(bench: Bench, offset: int, length: int, access: int) -> None:
    opened = bench.open()
    domain = pd.allocate(opened)
    block = bench.call(dm.allocate(opened, 128))
    assert fails(lambda: bench.call(mr.register_dm(domain, block, offset, length, access))) == errno.EINVAL
    assert (block.users, domain.users) == (0, 0)


def test_an_empty_region_of_device_memory_is_one(bench: Bench) -> None:
    opened = bench.open()
    block = bench.call(dm.allocate(opened, 128))
    assert bench.call(mr.register_dm(pd.allocate(opened), block, 0, 0, Access.ZERO_BASED)).handle


def test_closing_the_context_takes_windows_and_device_memory_along(bench: Bench) -> None:
    opened = bench.open()
    domain = pd.allocate(opened)
    block = bench.call(dm.allocate(opened, 128))
    bench.call(mr.register_dm(domain, block, 0, 64, Access.ZERO_BASED))
    bench.call(mw.allocate(domain, 2))
    bench.call(context.close(opened))
    assert bench.device.mkeys == {} and len(bench.driver.mws) == len(bench.driver.dms) == len(bench.driver.mrs) == 0
