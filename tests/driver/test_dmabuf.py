"""Regions of dma-bufs: what is checked, mapping, moving, and their order, on a fake device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from nicemu.abi.command import Command, MkeyFlag, Status
from nicemu.abi.verbs import PAGE_SIZE, Access
from nicemu.driver import mr, pd, rereg
from nicemu.driver.errors import DriverError
from nicemu.driver.mr import Mr
from nicemu.mm.dma_buf import DmaBuf, move_notify
from nicemu.timeline.host import Completion, Steps
from tests.driver.bench import Bench
from tests.driver.fake_device import ZAP_NS

RIGHTS = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
TOKEN = 9


@pytest.fixture
def buffer(bench: Bench) -> Iterator[DmaBuf]:
    """Eight pages at frames 500.."""
    made = DmaBuf(SimpleNamespace(scheduler=bench.scheduler, next_region=lambda: 1), 8 * PAGE_SIZE)  # type: ignore[arg-type]
    made.frames = np.arange(500, 508)
    yield made
    os.close(made.fd)
    made.unmap()


@pytest.fixture
def domain(bench: Bench) -> pd.Pd:
    return pd.allocate(bench.open())


def register(bench: Bench, domain: pd.Pd, buffer: DmaBuf, offset: int = 0, length: int = 0, iova: int = -1,
             access: int = RIGHTS) -> Mr:  # fmt: skip
    length = length or buffer.size - offset
    steps = mr.register_dmabuf(domain, buffer, offset, length, offset if iova < 0 else iova, access)
    region: Mr = bench.call(steps)
    return region


def move(bench: Bench, buffer: DmaBuf, to: int, fence: Completion | None = None) -> Steps[None]:
    """What an exporter does."""
    thread = bench.driver.thread
    yield from buffer.resv.acquire(thread)
    yield from move_notify(buffer)
    buffer.frames, buffer.fence = np.arange(to, to + buffer.pages), fence
    buffer.resv.release(thread)


def test_all_pages_are_mapped_at_registration(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    assert bench.frames_of(region) == {page: 500 + page for page in range(8)}
    assert bench.device.mkeys[region.index].flags == MkeyFlag.ODP == region.flags
    assert all(entry & 2 for entry in bench.device.mkeys[region.index].mtt.values())


def test_a_part_of_the_buffer_from_within_a_page(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer, offset=PAGE_SIZE + 100, length=PAGE_SIZE, iova=(5 << 20) + 100)
    assert bench.frames_of(region) == {0: 501, 1: 502}
    assert bench.device.mkeys[region.index].base == (5 << 20) + 100


def test_without_write_access_the_device_gets_none(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer, access=Access.REMOTE_READ)
    assert not any(entry & 2 for entry in bench.device.mkeys[region.index].mtt.values())


@pytest.mark.parametrize("access", [
    Access.ON_DEMAND | Access.LOCAL_WRITE, Access.ZERO_BASED, Access.MW_BIND, Access.HUGETLB, 1 << 30,
    Access.REMOTE_WRITE, Access.REMOTE_ATOMIC, -1,
])  # fmt: skip
def test_access_that_it_cannot_have(bench: Bench, domain: pd.Pd, buffer: DmaBuf, access: int) -> None:
    with pytest.raises(DriverError) as refused:
        register(bench, domain, buffer, access=access)
    assert refused.value.errno == errno.EINVAL and not buffer.attachments and not domain.users


@pytest.mark.parametrize(("offset", "length", "iova"), [
    (0, 8 * PAGE_SIZE + 1, 0), (PAGE_SIZE, 8 * PAGE_SIZE, 0), (0, 1 << 63, 0), (1 << 63, PAGE_SIZE, 0),
    (8, PAGE_SIZE, 0), (0, PAGE_SIZE, 8), (0, PAGE_SIZE, (1 << 64) - PAGE_SIZE + 0x1000), (-4096, PAGE_SIZE, 0),
])  # fmt: skip
def test_ranges_that_are_not_there(
    bench: Bench, domain: pd.Pd, buffer: DmaBuf, offset: int, length: int, iova: int
) -> None:
    with pytest.raises(DriverError) as refused:
        register(bench, domain, buffer, offset, length, iova)
    assert refused.value.errno == errno.EINVAL and not buffer.attachments


def test_an_empty_region(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    with pytest.raises(DriverError):
        bench.call(mr.register_dmabuf(domain, buffer, 0, 0, 0, RIGHTS))


@pytest.mark.parametrize("opcode", [Command.CREATE_MKEY, Command.UPDATE_MTT])
def test_a_device_that_refuses_leaves_nothing(bench: Bench, domain: pd.Pd, buffer: DmaBuf, opcode: Command) -> None:
    bench.device.refuse[opcode] = Status.NO_MEMORY
    with pytest.raises(DriverError) as refused:
        register(bench, domain, buffer)
    assert refused.value.errno == errno.ENOMEM
    assert not buffer.attachments and not domain.users and not len(bench.driver.mrs) and not bench.device.mkeys
    assert buffer.resv.owner is None and not bench.driver.devices[0].odp_mkeys


# Moving


def test_a_move_waits_for_the_device(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    before = bench.now
    bench.call(move(bench, buffer, 700))
    assert bench.frames_of(region) == {} and bench.now - before > ZAP_NS
    (stages,) = bench.driver.stages.invalidations
    assert stages["operation"] == "dma_buf_move" and stages["pages"] == 8
    assert stages["command"] < stages["drained"] <= stages["interrupt"] < stages["returned"]
    assert region.counters.page_invalidations == 8


def test_a_fault_after_the_move_maps_all_of_it_again(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    bench.call(move(bench, buffer, 700))
    bench.device.rdma_fault(TOKEN, region.key, 3 * PAGE_SIZE, 64)
    bench.run()
    assert bench.frames_of(region) == {page: 700 + page for page in range(8)}
    assert bench.device.resumed == [(TOKEN, 0)] and region.counters.page_faults == 8


def test_a_second_move_finds_nothing_mapped(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    register(bench, domain, buffer)
    bench.call(move(bench, buffer, 700))
    zaps = len(bench.driver.stages.invalidations)
    bench.call(move(bench, buffer, 800))
    assert len(bench.driver.stages.invalidations) == zaps


def test_every_region_of_the_buffer_lets_go(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    regions = [register(bench, domain, buffer, offset=page * PAGE_SIZE) for page in range(3)]
    bench.call(move(bench, buffer, 700))
    assert [bench.frames_of(region) for region in regions] == [{}, {}, {}]


def test_a_fault_during_the_copy_waits_for_its_fence(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    fence = Completion(bench.scheduler, "fence")
    bench.call(move(bench, buffer, 700, fence))
    bench.device.rdma_fault(TOKEN, region.key, 0, 64)
    bench.run()
    assert bench.frames_of(region) == {} and not bench.device.resumed
    buffer.fence = None
    fence.complete()
    bench.run()
    assert bench.frames_of(region)[0] == 700 and bench.device.resumed


def test_a_fault_during_a_move_maps_the_new_pages_only(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    bench.spawn(move(bench, buffer, 700))
    bench.device.rdma_fault(TOKEN, region.key, 0, 64)
    bench.run()
    assert bench.frames_of(region) == {page: 700 + page for page in range(8)}


def test_prefetch_maps_it(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    from nicemu.driver import advise_mr

    region = register(bench, domain, buffer)
    for advice in (0, 1, 2):
        bench.call(move(bench, buffer, 700 + 10 * advice))
        bench.call(advise_mr.advise(domain, advice, 1, ((0, 64, region.key),)))
        assert bench.frames_of(region)[7] == 707 + 10 * advice


# The end


def test_deregistration_detaches(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    bench.call(mr.deregister(region))
    assert not buffer.attachments and not bench.device.mkeys and not domain.users
    bench.call(move(bench, buffer, 700))


def test_a_move_and_a_deregistration_at_once(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    """The move never meets a key that is gone (ZAP_MTT would fail)."""
    region = register(bench, domain, buffer)
    threads = [bench.spawn(move(bench, buffer, 700)), bench.spawn(mr.deregister(region))]
    other = register(bench, domain, buffer)
    threads += [bench.spawn(mr.deregister(other)), bench.spawn(move(bench, buffer, 800))]
    bench.run()
    assert all(thread.finished and thread.error is None for thread in threads)
    assert not buffer.attachments and not bench.device.mkeys


def test_a_device_that_refuses_to_forget_the_key_keeps_the_region(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    bench.device.refuse[Command.DESTROY_MKEY] = Status.BAD_STATE
    with pytest.raises(DriverError):
        bench.call(mr.deregister(region))
    bench.device.refuse.clear()
    bench.call(move(bench, buffer, 700))
    bench.device.rdma_fault(TOKEN, region.key, 0, 64)
    bench.run()
    assert bench.frames_of(region)[0] == 700
    bench.call(mr.deregister(region))


def test_it_cannot_be_registered_anew(bench: Bench, domain: pd.Pd, buffer: DmaBuf) -> None:
    region = register(bench, domain, buffer)
    with pytest.raises(DriverError) as refused:
        bench.call(rereg.reregister(region, rereg.Wanted(4, None, 0, 0, 0, RIGHTS)))
    assert refused.value.errno == errno.EOPNOTSUPP
