"""Parent domains on the emulated NIC: rings in memory of the program, whatever the program does to it."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Callable

import pytest

from nicemu.abi.rings import CQE_BYTES, CQE_WR_ID
from nicemu.config import Config
from nicemu.driver.errors import DriverError
from nicemu.pyverbs import enums as e
from nicemu.pyverbs import mem_alloc
from nicemu.pyverbs.cq import CQEX, CqInitAttrEx
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD, ParentDomain, ParentDomainContext, ParentDomainInitAttr
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.uverbs import session
from tests.pyverbs.on_the_nic import Pair, ctx, lab

__all__ = ["ctx", "lab"]
RES_QP, RES_DBR, RES_SRQ, RES_CQ = (1 << 32 | number for number in (1, 3, 4, 5))
libc = ctypes.CDLL(None)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
libc.mmap.restype = ctypes.c_void_p


def mapping(size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> int:
    """Memory that the emulator knows nothing of."""
    return int(libc.mmap(None, size, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))


class Memory:
    """An allocator over ``mem_alloc``, or over mappings that the emulator knows nothing of (``own``)."""

    def __init__(self, own: bool) -> None:
        self.own = own
        self.blocks: dict[int, tuple[int, int]] = {}
        """Size and resource type by address."""

    def alloc(self, pd: PD, context: ParentDomainContext, size: int, alignment: int, kind: int) -> int:
        address = mapping(size) if self.own else mem_alloc.posix_memalign(size, alignment)
        self.blocks[address] = size, kind
        return address

    def free(self, pd: PD, context: ParentDomainContext, address: int, kind: int) -> None:
        size, what = self.blocks.pop(address)
        assert what == kind
        libc.munmap(address, size) if self.own else mem_alloc.free(address)

    def of(self, kind: int) -> list[int]:
        return [address for address, (_, what) in self.blocks.items() if what == kind]


class Domain(Pair):
    """An RC pair on a CQEX; all rings and records lie in the program's memory; `right` receives from an SRQ."""

    def __init__(self, ctx: Context, memory: Memory) -> None:
        self.ctx, self.memory = ctx, memory
        self.below = PD(ctx)
        attr = ParentDomainInitAttr(self.below, ParentDomainContext(self.below, memory.alloc, memory.free))
        self.pd = ParentDomain(ctx, attr)
        wants = e.IBV_WC_STANDARD_FLAGS
        self.cq = CQEX(ctx, CqInitAttrEx(cqe=16, wc_flags=wants, comp_mask=2, parent_domain=self.pd))
        self.srq = SRQ(self.pd, SrqInitAttr(SrqAttr(max_wr=8)))
        cap = QPCap(max_send_wr=8, max_recv_wr=8, max_inline_data=64)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap)
        self.left = QP(self.pd, init)
        init.srq = self.srq
        self.right = QP(self.pd, init)
        self.source, self.target = (MR(self.pd, 4096, 7) for _ in range(2))
        self.connect()

    def send(self, qp: QP, wr_id: int, data: bytes) -> None:
        self.source.write(data, len(data))
        qp.post_send(SendWR(wr_id=wr_id, num_sge=1, sg=[SGE(self.source.buf, len(data), self.source.lkey)]))

    def recv(self, queue: QP | SRQ, wr_id: int) -> None:
        queue.post_recv(RecvWR(wr_id=wr_id, num_sge=1, sg=[SGE(self.target.buf, 100, self.target.lkey)]))

    def completions(self) -> list[tuple[int, int]]:
        found = []
        while self.cq.start_poll(None) == 0:
            found.append((self.cq.wr_id, self.cq.status))
            while self.cq.poll_next() == 0:
                found.append((self.cq.wr_id, self.cq.status))
            self.cq.end_poll()
        return found


@pytest.fixture(params=[False, True], ids=["mem_alloc", "own"])
def domain(request: pytest.FixtureRequest, ctx: Context) -> Domain:
    return Domain(ctx, Memory(request.param))


def test_traffic_both_ways_round_and_round(domain: Domain) -> None:
    for wr_id in range(20):
        domain.recv(domain.srq, 100 + wr_id)
        domain.send(domain.left, wr_id, b"to the right")
        assert sorted(domain.completions()) == [(wr_id, 0), (100 + wr_id, 0)]
        domain.recv(domain.left, 100 + wr_id)
        domain.send(domain.right, wr_id, b"to the left %d" % wr_id)
        assert sorted(domain.completions()) == [(wr_id, 0), (100 + wr_id, 0)]
        assert domain.target.read(15, 0).startswith(b"to the left %d" % wr_id)


def test_the_rings_lie_where_the_program_said(domain: Domain) -> None:
    domain.recv(domain.srq, 0xABCD)
    domain.send(domain.left, 0x1234, b"x")
    assert len(domain.completions()) == 2
    (cq,), (srq,) = domain.memory.of(RES_CQ), domain.memory.of(RES_SRQ)
    wr_ids = {int.from_bytes(mem_alloc.read(cq + n * CQE_BYTES + CQE_WR_ID, 8), "little") for n in range(2)}
    assert wr_ids == {0x1234, 0xABCD}
    assert int.from_bytes(mem_alloc.read(srq, 8), "little") == 0xABCD


def test_closing_gives_every_block_back_once(domain: Domain) -> None:
    assert len(domain.memory.blocks) == 8
    domain.ctx.close()
    assert domain.memory.blocks == {}


def test_reset_and_another_life(domain: Domain) -> None:
    for life in range(3):
        for qp in (domain.left, domain.right):
            qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
        domain.connect()
        domain.recv(domain.srq, life)
        domain.send(domain.left, life, b"again")
        assert domain.completions() == [(life, 0), (life, 0)]


def scribble(domain: Domain) -> None:
    for address, (size, _) in domain.memory.blocks.items():
        mem_alloc.write(address, b"\xa5" * size, size)


def free_early(domain: Domain) -> None:
    for address, (size, _) in domain.memory.blocks.items():
        if domain.memory.own:
            libc.munmap(address, size)
        else:
            mem_alloc.free(address)
    assert domain.pd._allocator is not None
    domain.pd._allocator._p_free = lambda *arguments: None


@pytest.mark.parametrize("harm", [scribble, free_early])
def test_a_program_that_harms_its_rings_harms_itself_only(domain: Domain, harm: Callable[[Domain], None]) -> None:
    domain.recv(domain.srq, 1)
    domain.send(domain.left, 1, b"before")
    harm(domain)
    for qp in (domain.left, domain.right):
        for wr_id in range(3):
            try:
                domain.send(qp, wr_id, b"after")
                domain.recv(domain.left, wr_id)
            except PyverbsRDMAError as error:
                assert error.error_code in (errno.ENOMEM, errno.EINVAL)
    for _ in range(3):
        domain.cq.start_poll(None)
        domain.cq.end_poll()
    domain.ctx._kernel.settle(lambda: False, 1_000_000)
    domain.ctx.close()
    with Context(name="nicemu0") as again:
        assert Domain(again, Memory(False)).completions() == []


@pytest.mark.parametrize("address", [0x1000, 0x7FFF_FFFF_F000, (1 << 64) - 4096, 1 << 63])
def test_an_address_that_is_not_mapped_is_efault(ctx: Context, address: int) -> None:
    below = PD(ctx)
    pins = dict(ctx._kernel.dispatcher.mm.memlock.pins)
    attr = ParentDomainInitAttr(below, ParentDomainContext(below, lambda *_: address, lambda *_: None))
    parent = ParentDomain(ctx, attr)
    with pytest.raises(PyverbsRDMAError) as info:
        SRQ(parent, SrqInitAttr(SrqAttr(max_wr=8)))
    assert info.value.error_code in (errno.EFAULT, errno.EINVAL)
    cq = CqInitAttrEx(cqe=16, comp_mask=2, parent_domain=parent)
    with pytest.raises(PyverbsRDMAError) as info:
        CQEX(ctx, cq)
    assert info.value.error_code in (errno.EFAULT, errno.EINVAL)
    assert ctx._kernel.dispatcher.mm.memlock.pins == pins


def test_read_only_memory_is_efault(ctx: Context) -> None:
    below = PD(ctx)
    address = mapping(8192, mmap.PROT_READ)
    attr = ParentDomainInitAttr(below, ParentDomainContext(below, lambda *_: address, lambda *_: None))
    with pytest.raises(PyverbsRDMAError) as info:
        SRQ(ParentDomain(ctx, attr), SrqInitAttr(SrqAttr(max_wr=8)))
    assert info.value.error_code == errno.EFAULT
    libc.munmap(address, 8192)


def test_a_device_out_of_keys_gives_the_memory_back(domain: Domain) -> None:
    ctx = domain.ctx
    device = ctx._kernel.driver.devices[ctx._device_index]
    numbers, kept = device.mkey_numbers, len(domain.memory.blocks)

    class Exhausted:
        def take(self) -> int:
            raise DriverError(errno.ENOMEM, "none")

    device.mkey_numbers = Exhausted()
    try:
        with pytest.raises(PyverbsRDMAError) as info:
            SRQ(domain.pd, SrqInitAttr(SrqAttr(max_wr=8)))
    finally:
        device.mkey_numbers = numbers
    assert info.value.error_code == errno.ENOMEM and len(domain.memory.blocks) == kept


def test_rings_may_lie_in_model_memory() -> None:
    """Simulated RAM: no address of it can be read by the process itself."""
    session.reset()
    session.configure(Config(memory="model"))
    try:
        with Context(name=get_device_list()[0].name.decode()) as context:
            domain = Domain(context, Memory(own=False))
            for wr_id in range(20):
                domain.recv(domain.srq, 100 + wr_id)
                domain.send(domain.left, wr_id, b"model")
                assert sorted(domain.completions()) == [(wr_id, 0), (100 + wr_id, 0)]
            assert domain.target.read(5, 0) == b"model"
        assert domain.memory.blocks == {}
    finally:
        session.reset()
