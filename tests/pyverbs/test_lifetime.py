"""Who closes whom, and when."""

import errno
import gc

import pytest

from nicemu.pyverbs.cq import CQ, CompChannel
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.pyverbs.qp import QP, QPInitAttr, QPInitAttrEx
from nicemu.uverbs import memory_messages as mem
from nicemu.uverbs import messages as m

CLOSING = (m.DestroyQp, m.DestroyCq, m.DestroyCompChannel, mem.DeregMr, m.DeallocPd, m.CloseDevice, m.DestroyAh)


def closings(kernel):
    return [type(command).__name__ for command in kernel.log if isinstance(command, CLOSING)]


def test_context_closes_its_children_first(kernel, ctx, pd):
    channel = CompChannel(ctx)
    cq = CQ(ctx, 4, None, channel)
    mr = MR(pd, 64, 1)
    qp = QP(pd, QPInitAttr(qp_type=2, scq=cq, rcq=cq))
    ctx.close()
    assert closings(kernel) == ["DestroyQp", "DestroyCq", "DestroyCompChannel", "DeregMr", "DeallocPd", "CloseDevice"]
    assert mr.buf == 0 and qp


def test_children_close_in_the_order_of_their_creation(kernel, pd):
    regions = [MR(pd, 64, 1) for _ in range(20)]
    handles = [region.handle for region in regions]
    pd.close()
    assert [command.mr for command in kernel.commands(mem.DeregMr)] == handles


def test_closing_twice_does_nothing(kernel, pd):
    pd.close()
    pd.close()
    assert len(kernel.commands(m.DeallocPd)) == 1


def test_a_child_keeps_its_parents(kernel, ctx):
    mr = MR(PD(ctx), 64, 1)
    gc.collect()
    assert closings(kernel) == []
    del mr
    assert closings(kernel) == ["DeregMr", "DeallocPd"]


def test_a_parent_does_not_keep_its_children(kernel, ctx):
    CQ(ctx, 4)
    assert closings(kernel) == ["DestroyCq"]


def test_with_closes(kernel):
    with Context(name="nicemu0"):
        pass
    assert closings(kernel) == ["CloseDevice"]


def test_a_refused_close_leaves_the_object_open(kernel, pd):
    kernel.fail[m.DeallocPd] = errno.EBUSY
    with pytest.raises(PyverbsRDMAError, match=r"Failed to dealloc PD. Errno: 16"):
        pd.close()
    kernel.fail.clear()
    assert pd.handle


def test_qp_of_a_context_is_closed_with_its_pd(kernel, ctx, pd, cq):
    attr = QPInitAttrEx(qp_type=2, scq=cq, rcq=cq, comp_mask=1, pd=pd)
    qp = QP(ctx, attr)
    pd.close()
    assert closings(kernel) == ["DestroyQp", "DeallocPd"] and qp


def test_a_dead_device_is_silent_when_objects_go(kernel, ctx, capsys):
    cq = CQ(ctx, 4)
    kernel.fail[m.DestroyCq] = errno.ENODEV
    del cq
    assert capsys.readouterr().err == ""


def test_an_mr_frees_its_own_buffer_after_deregistration(kernel, pd):
    mr = MR(pd, 64, 1)
    address = mr.buf
    assert address % 4096 == 0
    mr.close()
    assert kernel.process.freed == [address]


def test_an_mr_never_frees_memory_of_the_program(kernel, pd):
    MR(pd, 64, 1, address=0x11000).close()
    assert kernel.process.freed == []


def test_a_failed_registration_frees_the_buffer(kernel, pd):
    kernel.fail[mem.RegMr] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError):
        MR(pd, 64, 2)
    assert len(kernel.process.freed) == 1
