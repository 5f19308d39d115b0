"""Registration: checks, keys, pinned memory, lifetimes."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from nicemu.abi.command import Command, MkeyFlag, Status, mtt_entry
from nicemu.abi.verbs import PAGE_SHIFT, Access
from nicemu.driver import DriverError, ah, context, cq, mr, pd, qp
from nicemu.driver.command import MTT_CHUNK
from nicemu.driver.umem import mtt_entries, page_span, update_mtt, update_mtt_page, update_mtt_pages
from nicemu.uverbs.messages import AddressVector, Capabilities
from tests.driver.bench import Bench
from tests.driver.fake_device import GID

RW = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ


def test_entries_are_those_of_the_abi() -> None:
    frames = np.array([5 << 1 | 1, 6 << 1], np.int64)
    assert list(mtt_entries(frames, True, 9)) == [mtt_entry(5, True, 9), mtt_entry(6, False, 9)]
    assert list(mtt_entries(frames, False, 9)) == [mtt_entry(5, False, 9), mtt_entry(6, False, 9)]


@pytest.mark.parametrize("access", [Access.ON_DEMAND, Access.ON_DEMAND | Access.LOCAL_WRITE])
@pytest.mark.parametrize("frame", [0, 77 << 1, 77 << 1 | 1])
def test_one_page_is_told_as_many_are(bench: Bench, access: Access, frame: int) -> None:
    region, told = bench.region(access), []
    entries = mtt_entries(np.array([frame]), region.writable, 9)
    for steps in (update_mtt_page(region, 3, frame, 9), update_mtt(region, 3, entries)):
        bench.call(steps)
        told.append((bench.device.log[-1], bench.device.mkeys[region.index].mtt.pop(3)))
    assert told[0] == told[1] and told[0][0][0] == Command.UPDATE_MTT


def test_many_pages_are_told_a_mailbox_full_at_a_time(bench: Bench) -> None:
    region = bench.region(Access.ON_DEMAND | Access.LOCAL_WRITE)
    frames = np.arange(2 * MTT_CHUNK + 5, dtype=np.int32)  # the first is none
    bench.call(update_mtt_pages(region, 3, frames, 9))
    mtt = bench.device.mkeys[region.index].mtt
    assert [mtt.get(3 + page, 0) for page in range(len(frames))] == mtt_entries(frames, True, 9).tolist()
    assert [entry[0] for entry in bench.device.log[-3:]] == [Command.UPDATE_MTT] * 3


@pytest.mark.parametrize(
    ("address", "length", "span"),
    [(0x1000, 1, (0x1000, 1)), (0x1FFF, 1, (0x1000, 1)), (0x1FFF, 2, (0x1000, 2)), (0x1001, 8192, (0x1000, 3))],
)
def test_page_span(address: int, length: int, span: tuple[int, int]) -> None:
    assert page_span(address, length) == span


def test_pinned_memory_is_mapped_by_one_command_and_unpinned_at_the_end(bench: Bench) -> None:
    region = bench.region(RW, address=0x100010, length=3 * 4096)
    assert list(bench.frames_of(region)) == [0, 1, 2, 3]
    assert set(bench.mm.pinned.values()) == {1}
    created = bench.device.mkeys[region.index]
    assert (created.base, created.length, created.flags) == (0x100010, 3 * 4096, 0)
    bench.call(mr.deregister(region))
    assert bench.device.mkeys == {} and set(bench.mm.pinned.values()) == {0}


def test_pins_count_towards_rlimit_memlock(bench: Bench) -> None:
    """``ib_umem_get`` counts the pages of each region, those of two regions on the same memory twice."""
    bench.mm.memlock.limit = 6
    region = bench.region(RW, address=0x100010, length=3 * 4096)
    assert bench.mm.memlock.pins == {f"MR {region.number} of {region.device.name}": 4}
    with pytest.raises(DriverError) as caught:
        bench.region(RW, address=0x100010, length=3 * 4096)
    assert caught.value.errno == errno.ENOMEM
    assert caught.value.strerror == "MR: RLIMIT_MEMLOCK is 24 KiB: 16 KiB wanted, 16 KiB pinned"
    assert set(bench.mm.pinned.values()) == {1} and bench.mm.memlock.pinned_vm == 4
    bench.call(mr.deregister(region))
    assert bench.mm.memlock.pinned_vm == 0 and not bench.mm.memlock.pins


def test_on_demand_regions_are_not_limited(bench: Bench) -> None:
    bench.mm.memlock.limit = 0
    bench.region(RW | Access.ON_DEMAND)
    with pytest.raises(DriverError) as caught:
        bench.region(RW)
    assert caught.value.errno == errno.EPERM


def test_pinning_that_fails_is_not_counted(bench: Bench) -> None:
    bench.mm.absent.add(0x103)
    with pytest.raises(DriverError):
        bench.region(RW, address=0x100000, length=8 * 4096)
    assert bench.mm.memlock.pinned_vm == 0 and not bench.mm.memlock.pins


def test_large_regions_go_in_several_mailboxes(bench: Bench) -> None:
    region = bench.region(RW, pages=20_000)
    updates = [p[1:3] for opcode, p in bench.device.log if opcode == Command.UPDATE_MTT]
    assert updates == [(0, 8192), (8192, 8192), (16384, 3616)]
    assert len(bench.frames_of(region)) == 20_000


@pytest.mark.parametrize(
    ("access", "length", "address", "iova", "number"),
    [
        (Access.REMOTE_WRITE, 4096, 0x1000, 0x1000, errno.EINVAL),
        (Access.REMOTE_ATOMIC, 4096, 0x1000, 0x1000, errno.EINVAL),
        (RW, 0, 0x1000, 0x1000, errno.EINVAL),
        (RW, 4096, 0x1000, -1, errno.EINVAL),
        (RW, 4096, 0x1000, (1 << 64) - 4095, errno.EINVAL),
        (RW, (1 << 64) - 1, 0, 0, errno.EINVAL),
        (RW | 1 << 15, 4096, 0x1000, 0x1000, errno.EINVAL),
        (RW | Access.HUGETLB | Access.ON_DEMAND, 4096, 0x1000, 0x1000, errno.EOPNOTSUPP),
    ],
)
def test_bad_registrations(bench: Bench, access: int, length: int, address: int, iova: int, number: int) -> None:
    domain = pd.allocate(bench.open())
    with pytest.raises(DriverError) as caught:
        bench.call(mr.register(domain, address, length, access, iova))
    assert caught.value.errno == number and domain.users == 0 and bench.device.log == []


def test_relaxed_ordering_is_ignored(bench: Bench) -> None:
    assert bench.region(RW | Access.RELAXED_ORDERING).handle


def test_absent_memory_is_efault_and_nothing_stays(bench: Bench) -> None:
    bench.mm.absent.add((0x100000 >> PAGE_SHIFT) + 9000)
    domain = pd.allocate(bench.open())
    with pytest.raises(DriverError) as caught:
        bench.call(mr.register(domain, 0x100000, 10_000 * 4096, RW, 0x100000))
    assert caught.value.errno == errno.EFAULT
    assert bench.device.mkeys == {} and domain.users == 0 and set(bench.mm.pinned.values()) == {0}
    bench.region(RW, address=0x100000)


def test_on_demand_memory_may_be_absent_and_starts_empty(bench: Bench) -> None:
    bench.mm.absent.add(0x100000 >> PAGE_SHIFT)
    region = bench.region(RW | Access.ON_DEMAND)
    assert bench.device.mkeys[region.index].flags == MkeyFlag.ODP and bench.frames_of(region) == {}


def test_keys_do_not_come_back_soon_and_their_neighbours_are_invalid(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    keys = []
    for _ in range(4):
        region = bench.call(mr.register(domain, 0x100000, 4096, RW, 0x100000))
        keys.append(region.key)
        assert region.key >> 8 == region.index and region.key + 1 not in {m.key for m in bench.device.mkeys.values()}
        bench.call(mr.deregister(region))
    assert len({key >> 8 for key in keys}) == 4


def test_an_index_used_again_has_another_variant(bench: Bench) -> None:
    device = bench.driver.devices[0]
    device.mkey_numbers._end = 3
    domain = pd.allocate(bench.open())
    seen = set()
    for _ in range(6):
        region = bench.call(mr.register(domain, 0x100000, 4096, RW, 0x100000))
        seen.add(region.key)
        bench.call(mr.deregister(region))
    assert len(seen) == 6


def test_running_out_of_keys_is_enomem(bench: Bench) -> None:
    bench.driver.devices[0].mkey_numbers._end = 1
    with pytest.raises(DriverError) as caught:
        bench.region(RW)
    assert caught.value.errno == errno.ENOMEM


def test_a_refused_mkey_is_undone(bench: Bench) -> None:
    bench.device.refuse[Command.CREATE_MKEY] = Status.NO_MEMORY
    domain = pd.allocate(bench.open())
    with pytest.raises(DriverError):
        bench.call(mr.register(domain, 0x100000, 4096, RW, 0x100000))
    assert domain.users == 0
    pd.deallocate(domain)


@pytest.mark.parametrize("flag", [Access.FLUSH_GLOBAL, Access.FLUSH_PERSISTENT])
def test_flush_access_reaches_the_device(bench: Bench, flag: Access) -> None:
    region = bench.region(RW | flag)
    assert bench.device.mkeys[region.index].access & flag


# Lifetimes


def objects(bench: Bench) -> context.Context:
    """A context with one of everything."""
    opened = bench.open()
    domain = pd.allocate(opened)
    queue = bench.call(cq.create(opened, 10, 0, None))
    bench.call(qp.create(domain, 2, (queue, queue), Capabilities(4, 4, 1, 1, 0), 1))
    bench.call(mr.register(domain, 0x100000, 4096, RW, 0x100000))
    bench.call(mr.register(domain, 0x200000, 4096, RW | Access.ON_DEMAND, 0x200000))
    bench.call(ah.create(domain, AddressVector(is_global=1, dgid=GID)))
    return opened


def test_what_is_used_is_busy(bench: Bench) -> None:
    objects(bench)
    domain, queue = next(iter(bench.driver.pds)), next(iter(bench.driver.cqs))
    with pytest.raises(DriverError) as caught:
        pd.deallocate(domain)
    assert caught.value.errno == errno.EBUSY and domain.users == 4
    with pytest.raises(DriverError) as caught:
        bench.call(cq.destroy(queue))
    assert caught.value.errno == errno.EBUSY and bench.device.cqs


@pytest.mark.parametrize("discipline", ["v6.12", "v3.7"])
def test_closing_a_context_destroys_what_is_left(discipline: str) -> None:
    bench = Bench(discipline)
    first, second = objects(bench), bench.open()
    bench.call(context.close(first))
    driver = bench.driver
    assert not any(map(len, (driver.pds, driver.cqs, driver.qps, driver.mrs, driver.ahs)))
    assert not bench.device.mkeys and not bench.device.cqs and not bench.device.qps and not bench.device.sq_entries
    assert list(driver.contexts) == [second] and driver.devices[0].contexts == [second]
    assert bench.mm.notifiers.subscribers == [] and list(bench.mm.intervals) == []
    objects(bench)


def test_handles_are_never_used_again(bench: Bench) -> None:
    domain = pd.allocate(bench.open())
    pd.deallocate(domain)
    assert pd.allocate(bench.open()).handle != domain.handle
    with pytest.raises(DriverError) as caught:
        bench.driver.pds.get(domain.handle)
    assert caught.value.errno == errno.EINVAL
