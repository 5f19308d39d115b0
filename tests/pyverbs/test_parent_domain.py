"""Parent domains: whose memory rings and doorbell records lie in, and when the allocator is asked (mlx5's order)."""

import errno
import sys

import pytest

from nicemu.pyverbs.addr import AH
from nicemu.pyverbs.cq import CQEX, CqInitAttrEx
from nicemu.pyverbs.libibverbs_enums import _IBV_ALLOCATOR_USE_DEFAULT as USE_DEFAULT
from nicemu.pyverbs.mr import MR, MW
from nicemu.pyverbs.pd import PD, ParentDomain, ParentDomainContext, ParentDomainInitAttr
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPCap, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s
from tests.pyverbs.conftest import rc_attr

RES_QP, RES_DBR, RES_SRQ, RES_CQ = (1 << 32 | number for number in (1, 3, 4, 5))
PAGE = 4096


class Allocator:
    """Gives addresses, and remembers every call."""

    def __init__(self, pd: PD) -> None:
        self.calls: list[tuple] = []
        self.held: list[int] = []
        self.next = 0x10_0000
        self.answer = None
        self.context = ParentDomainContext(pd, self.alloc, self.free, user_data="mine")

    def alloc(self, pd, context, size, alignment, kind):
        self.calls.append(("alloc", size, alignment, kind))
        assert context is self.context and pd is context._pd and context.user_data == "mine"
        if self.answer is not None:
            return self.answer(size, kind)
        self.next = address = -(-self.next // alignment) * alignment + size
        self.held.append(address - size)
        return address - size

    def free(self, pd, context, address, kind):
        self.calls.append(("free", address, kind))
        assert context is self.context and pd is context._pd
        self.held.remove(address)


@pytest.fixture
def allocator(pd) -> Allocator:
    return Allocator(pd)


@pytest.fixture
def parent(ctx, pd, allocator) -> ParentDomain:
    return ParentDomain(ctx, ParentDomainInitAttr(pd, allocator.context))


def cq_of(ctx, parent, cqe: int = 4) -> CQEX:
    return CQEX(ctx, CqInitAttrEx(cqe=cqe, comp_mask=2, parent_domain=parent))


def test_a_parent_domain_is_the_pd_below_to_the_kernel(kernel, ctx, pd, parent):
    before = len(kernel.log)
    assert parent.handle == pd.handle and parent.pd == pd.pd
    mr = MR(parent, 64, 1)
    assert kernel.log[-1].pd == pd.handle
    parent.close()
    assert [type(c) for c in kernel.log[before:]] == [mem.RegMr, mem.DeregMr]
    assert pd.pd and not mr.buf


def test_without_allocators_it_is_a_pd(kernel, ctx, pd, cq):
    parent = ParentDomain(ctx, ParentDomainInitAttr(pd))
    qp = QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq))
    assert qp.qp_num and (kernel.log[-1].ring, kernel.log[-1].record) == (0, 0)


def test_a_closed_pd_has_no_parent_domain(ctx, pd):
    attr = ParentDomainInitAttr(pd)
    pd.close()
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate Parent Domain") as info:
        ParentDomain(ctx, attr)
    assert info.value.error_code == errno.EINVAL


def test_a_qp_has_one_buffer_and_a_record(kernel, parent, allocator, cq):
    cap = QPCap(max_send_wr=100, max_recv_wr=100, max_send_sge=4, max_recv_sge=4, max_inline_data=64)
    qp = QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq, cap=cap))
    size = 128 * 128 + 128 * 128
    assert allocator.calls == [("alloc", size, PAGE, RES_QP), ("alloc", 16, 8, RES_DBR)]
    ring, record = allocator.held
    assert (kernel.log[-1].ring, kernel.log[-1].record) == (ring, record)
    qp.close()
    assert allocator.calls[2:] == [("free", record, RES_DBR), ("free", ring, RES_QP)]
    qp.close()
    assert len(allocator.calls) == 4


def test_cqs_and_srqs_have_theirs(kernel, ctx, parent, allocator):
    own = cq_of(ctx, parent, cqe=100)
    assert allocator.calls == [("alloc", 128 * 64, PAGE, RES_CQ), ("alloc", 16, 8, RES_DBR)]
    allocator.calls.clear()
    srq = SRQ(parent, SrqInitAttr(SrqAttr(max_wr=100)))
    assert allocator.calls == [("alloc", 128 * 64, PAGE, RES_SRQ), ("alloc", 16, 8, RES_DBR)]
    assert (kernel.log[-1].ring, kernel.log[-1].record) == tuple(allocator.held[2:])
    srq.close()
    assert len(allocator.held) == 2
    own.close()
    assert not allocator.held


def test_a_qp_with_an_srq_has_a_send_ring_only(parent, allocator, cq):
    srq = SRQ(parent, SrqInitAttr(SrqAttr(max_wr=1)))
    allocator.calls.clear()
    QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq, srq=srq, cap=QPCap(max_send_wr=1, max_recv_wr=1000)))
    assert allocator.calls[0] == ("alloc", PAGE, PAGE, RES_QP)


def test_a_cq_names_its_parent_domain_by_comp_mask(ctx, parent, allocator):
    CQEX(ctx, CqInitAttrEx(cqe=4, parent_domain=parent))
    assert allocator.calls == []


def test_an_extended_qp_takes_it_from_its_attributes(ctx, parent, allocator, cq):
    attr = QPInitAttrEx(qp_type=2, scq=cq, rcq=cq, pd=parent, comp_mask=1)
    qp = QP(ctx, attr)
    assert len(allocator.held) == 2
    qp.close()
    assert allocator.held == []


def test_the_allocator_may_leave_it_to_the_library(kernel, parent, allocator, cq):
    allocator.answer = lambda size, kind: USE_DEFAULT
    QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq)).close()
    assert [call[0] for call in allocator.calls] == ["alloc", "alloc"]
    assert {command.ring for command in kernel.log if isinstance(command, m.CreateQp)} == {0}


def make_qp(ctx, parent, cq):
    return QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq))


def make_srq(ctx, parent, cq):
    return SRQ(parent, SrqInitAttr(SrqAttr()))


def make_cq(ctx, parent, cq):
    return cq_of(ctx, parent)


EVERY = pytest.mark.parametrize("make", [make_qp, make_srq, make_cq])


@EVERY
@pytest.mark.parametrize("answer", [0, None, "text", -1, 1 << 64])
def test_no_address_is_enomem(monkeypatch, ctx, parent, allocator, cq, make, answer):
    monkeypatch.setattr(sys, "unraisablehook", lambda error: None)
    allocator.answer = lambda size, kind: answer
    with pytest.raises(PyverbsRDMAError, match="Failed to create") as info:
        make(ctx, parent, cq)
    assert info.value.error_code == errno.ENOMEM


@EVERY
def test_an_exception_of_the_allocator_is_told_and_enomem(monkeypatch, ctx, parent, allocator, cq, make):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    allocator.answer = lambda size, kind: 1 // 0
    with pytest.raises(PyverbsRDMAError) as info:
        make(ctx, parent, cq)
    assert info.value.error_code == errno.ENOMEM and told[0].exc_type is ZeroDivisionError


@EVERY
def test_what_was_given_goes_back_if_the_record_is_refused(ctx, parent, allocator, cq, make):
    allocator.answer = lambda size, kind: 0 if kind == RES_DBR else allocator.held.append(0x20_0000) or 0x20_0000
    with pytest.raises(PyverbsRDMAError):
        make(ctx, parent, cq)
    assert allocator.held == [] and len(allocator.calls) == 3


@EVERY
def test_memory_that_is_not_aligned_as_asked_goes_back_with_einval(ctx, parent, allocator, cq, make):
    allocator.answer = lambda size, kind: allocator.held.append(0x20_0004) or 0x20_0004
    with pytest.raises(PyverbsRDMAError) as info:
        make(ctx, parent, cq)
    assert info.value.error_code == errno.EINVAL and allocator.held == []


@EVERY
def test_what_was_given_goes_back_if_the_kernel_refuses(kernel, ctx, parent, allocator, cq, make):
    for command in (m.CreateQp, m.CreateCq, s.CreateSrq):
        kernel.fail[command] = errno.EFAULT
    with pytest.raises(PyverbsRDMAError) as info:
        make(ctx, parent, cq)
    assert info.value.error_code == errno.EFAULT and allocator.held == []
    assert [call[0] for call in allocator.calls] == ["alloc", "alloc", "free", "free"]


def test_what_the_device_cannot_have_is_not_allocated_first(kernel, ctx, parent, allocator, cq):
    with pytest.raises(PyverbsRDMAError):
        cq_of(ctx, parent, cqe=1 << 31)
    kernel.fail[m.CreateQp] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError):
        QP(parent, QPInitAttr(qp_type=2, scq=cq, rcq=cq, cap=QPCap(max_send_wr=1 << 31)))
    assert allocator.calls == []


def test_an_exception_of_free_is_told_and_the_object_is_closed(monkeypatch, ctx, pd, cq):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    allocator = Allocator(pd)
    allocator.context._p_free = lambda *arguments: 1 // 0
    qp = make_qp(ctx, ParentDomain(ctx, ParentDomainInitAttr(pd, allocator.context)), cq)
    qp.close()
    assert len(told) == 2


def test_children_close_before_it_cqs_first(kernel, ctx, pd, parent, allocator):
    own, srq = cq_of(ctx, parent), SRQ(parent, SrqInitAttr(SrqAttr()))
    qp = QP(parent, QPInitAttr(qp_type=2, scq=own, rcq=own))
    mr, mw, ah = MR(parent, 64, 1), MW(parent, 1), AH(parent, attr=rc_attr().ah_attr)
    before = len(kernel.log)
    pd.close()
    assert [type(c).__name__ for c in kernel.log[before:]] == [
        "DestroyQp", "DestroyCq", "DestroyAh", "DeallocMw", "DeregMr", "DestroySrq", "DeallocPd",
    ]  # fmt: skip
    assert allocator.held == [] and not any(o._handle for o in (own, srq, qp, mr, mw, ah, parent))


def test_closing_the_context_frees_everything(ctx, parent, allocator, cq):
    own = cq_of(ctx, parent)
    objects = make_qp(ctx, parent, own), make_srq(ctx, parent, own)
    ctx.close()
    assert allocator.held == [] and not any(o._handle for o in objects)


def test_a_parent_domain_of_a_parent_domain(ctx, pd, parent, allocator, cq):
    other = Allocator(pd)
    outer = ParentDomain(ctx, ParentDomainInitAttr(parent, other.context))
    qp = make_qp(ctx, outer, cq)
    assert qp.qp_num and allocator.calls == [] and len(other.held) == 2 and outer.handle == pd.handle
