"""Imported contexts, PDs, MRs and DMs: the driver on a fake device, and once on the NIC."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from nicemu.pyverbs import _kernel
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import DM, AllocDmAttr, Context, get_device_list
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import session
from nicemu.uverbs.endpoint import Endpoint
from tests.driver.bench import Bench
from tests.pyverbs.on_the_nic import Pair
from tests.uverbs.calls import FakeProcess


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    endpoint = Endpoint(bench.timeline, bench.driver, FakeProcess(bench))
    monkeypatch.setattr(_kernel, "endpoint", lambda: endpoint)
    return bench


@pytest.fixture
def ctx(bench: Bench) -> Iterator[Context]:
    with Context(name="nicemu0") as context:
        yield context


@pytest.fixture
def imported(ctx: Context) -> Context:
    return Context(cmd_fd=os.dup(ctx.cmd_fd))


def test_an_imported_context_is_the_same_device(ctx: Context, imported: Context) -> None:
    assert imported.name == "nicemu0" and imported.context == ctx.context
    assert imported.cmd_fd != ctx.cmd_fd and os.fstat(imported.cmd_fd).st_ino == os.fstat(ctx.cmd_fd).st_ino


@pytest.mark.parametrize("fd", [-1, 0, 9999])
def test_a_descriptor_of_no_device(ctx: Context, fd: int) -> None:
    with pytest.raises(PyverbsRDMAError, match="Failed to import device") as refused:
        Context(cmd_fd=fd)
    assert refused.value.error_code == errno.EINVAL


def test_the_device_stays_open_for_the_other_context(ctx: Context, imported: Context, bench: Bench) -> None:
    fd = imported.cmd_fd
    ctx.close()
    with PD(imported):
        pass
    imported.close()
    imported.close()
    assert not len(bench.driver.contexts)
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(PyverbsUserError):
        imported.cmd_fd  # noqa: B018


def test_an_imported_pd_is_left_to_its_owner(ctx: Context, imported: Context, bench: Bench) -> None:
    pd = PD(ctx)
    other = PD(imported, handle=pd.handle)
    assert other.handle == pd.handle
    other.unimport()
    other.close()
    assert bench.driver.pds.get(pd.handle)
    PD(imported, handle=pd.handle).close()
    assert bench.driver.pds.get(pd.handle)


def test_regions_made_in_an_imported_pd_go_with_it(ctx: Context, imported: Context, bench: Bench) -> None:
    pd = PD(ctx)
    other = PD(imported, handle=pd.handle)
    mr = MR(other, 4096, e.IBV_ACCESS_LOCAL_WRITE, address=0x100000)
    with pytest.raises(PyverbsRDMAError) as busy:
        pd.close()
    assert busy.value.error_code == errno.EBUSY
    other.unimport()
    with pytest.raises(PyverbsUserError):
        mr.lkey  # noqa: B018
    assert not len(bench.driver.mrs)
    pd.close()


def test_an_imported_mr_has_keys_and_length_and_the_address_it_is_told(ctx: Context, bench: Bench) -> None:
    pd = PD(ctx)
    mr = MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE, address=0x100000)
    other = MR(pd, handle=mr.handle, address=0x100000)
    assert (other.lkey, other.rkey, other.length, other.buf) == (mr.lkey, mr.rkey, 4096, 0x100000)
    assert MR(pd, handle=mr.handle).buf == 0
    other.unimport()
    assert other.buf == 0 and bench.driver.mrs.get(mr.handle)
    mr.close()
    assert not len(bench.driver.mrs)


def test_device_memory_is_shared(ctx: Context, imported: Context, bench: Bench) -> None:
    dm = DM(ctx, AllocDmAttr(64))
    other = DM(imported, handle=dm.handle)
    dm.copy_to_dm(0, b"shared!!", 8)
    assert other.copy_from_dm(0, 8) == b"shared!!"
    other.unimport()
    assert dm.copy_from_dm(0, 8) == b"shared!!"


def test_an_import_outlives_what_it_was_made_from(ctx: Context) -> None:
    dm = DM(ctx, AllocDmAttr(64))
    other = DM(ctx, handle=dm.handle)
    dm.close()
    with pytest.raises(PyverbsRDMAError) as gone:
        other.copy_from_dm(0, 8)
    assert gone.value.error_code == errno.EINVAL
    other.close()


@pytest.mark.parametrize("handle", [0, 77, 2**32 - 1])
def test_handles_of_nothing(ctx: Context, handle: int) -> None:
    pd = PD(ctx)
    for what, make in (
        ("PD", lambda: PD(ctx, handle=handle)),
        ("MR", lambda: MR(pd, handle=handle)),
        ("DM", lambda: DM(ctx, handle=handle)),
    ):
        with pytest.raises(PyverbsRDMAError, match=f"Failed to import {what}") as refused:
            make()
        assert refused.value.error_code == errno.ENOENT
    with pytest.raises(OverflowError):
        PD(ctx, handle=2**32)


# On the NIC


def test_traffic_through_imported_objects_passes_the_protection_check() -> None:
    session.reset()
    with Context(name=get_device_list()[0].name.decode()) as owner:
        pd = PD(owner)
        mr = MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE)
        with Context(cmd_fd=os.dup(owner.cmd_fd)) as ctx:
            pair = Pair(ctx, CQ(ctx, 64), pd=PD(ctx, handle=pd.handle))
            pair.target = MR(pair.pd, handle=mr.handle, address=mr.buf)
            pair.source.write("imported", 8)
            pair.left.post_send(pair.write(8))
            assert [wc.status for wc in pair.poll(1)] == [e.IBV_WC_SUCCESS]
            assert mr.read(8, 0) == b"imported" == pair.target.read(8, 0)
        pair.target.close()
        assert mr.read(8, 0) == b"imported"
    session.reset()
