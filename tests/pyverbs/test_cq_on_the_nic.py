"""CQs of pyverbs on the emulated NIC: resize, timestamps, overrun, moderation, unacknowledged events."""

from __future__ import annotations

import errno

import pytest

from nicemu.abi.rings import VENDOR_SYNDROME, WALLCLOCK_EPOCH_NS
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CQEX, CompChannel, CqInitAttrEx, PollCqAttr
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError
from nicemu.uverbs import messages
from tests.pyverbs.on_the_nic import Pair, ctx, lab, pair

__all__ = ["ctx", "lab", "pair"]


def fill(pair: Pair, wr_ids: range) -> None:
    for wr_id in wr_ids:
        wr = pair.write(8)
        wr.wr_id = wr_id
        pair.left.post_send(wr)


def test_resize_grows_and_shrinks(ctx: Context) -> None:
    cq = CQ(ctx, 3)
    for asked, granted in ((1, 1), (7, 7), (100, 127)):
        cq.resize(asked)
        assert cq.cqe == granted


def test_resize_below_what_waits_is_einval_and_loses_nothing(pair: Pair) -> None:
    fill(pair, range(6))
    pair.ctx._kernel.settle(lambda: False, 1_000_000)
    with pytest.raises(PyverbsRDMAError) as info:
        pair.cq.resize(5)
    assert info.value.error_code == errno.EINVAL and pair.cq.cqe == 127
    pair.cq.resize(6)
    assert pair.cq.cqe == 7
    assert [wc.wr_id for wc in pair.poll(6)] == list(range(6))
    fill(pair, range(10, 14))
    assert [wc.wr_id for wc in pair.poll(4)] == list(range(10, 14))


def test_resize_out_of_range_is_einval(ctx: Context) -> None:
    cq = CQ(ctx, 3)
    for cqe in (0, ctx.query_device().max_cqe + 1):
        with pytest.raises(PyverbsRDMAError) as info:
            cq.resize(cqe)
        assert info.value.error_code == errno.EINVAL


def test_resize_keeps_armed_events(ctx: Context) -> None:
    channel = CompChannel(ctx)
    pair = Pair(ctx, CQ(ctx, 8, None, channel))
    pair.cq.req_notify()
    pair.cq.resize(30)
    fill(pair, range(1))
    channel.get_cq_event(pair.cq)
    assert len(pair.poll(1)) == 1


@pytest.fixture
def stamped(ctx: Context) -> Pair:
    """A pair on an extended CQ with both timestamps."""
    kinds = e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP | e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK
    return Pair(ctx, CQEX(ctx, CqInitAttrEx(cqe=16, wc_flags=e.IBV_WC_STANDARD_FLAGS | kinds)))


def test_timestamps_are_of_the_clock_that_can_be_read(stamped: Pair) -> None:
    before = stamped.ctx.query_rt_values_ex()
    fill(stamped, range(1))
    assert stamped.cq.start_poll(PollCqAttr()) == 0
    raw, wall = stamped.cq.read_timestamp(), stamped.cq.read_completion_wallclock_ns()
    stamped.cq.end_poll()
    after = stamped.ctx.query_rt_values_ex()
    assert before[0] == after[0] == 0 and before[1] < raw < after[1]
    assert wall - raw == WALLCLOCK_EPOCH_NS


def test_the_clock_ticks_as_fast_as_the_attributes_say(ctx: Context) -> None:
    attr = ctx.query_device_ex()
    assert attr.hca_core_clock == 1_000_000, "kHz: one tick a nanosecond"
    assert attr.completion_timestamp_mask == (1 << 64) - 1
    first = ctx.query_rt_values_ex()[1]
    ctx._kernel.settle(lambda: False, 0)
    ctx._kernel.enter(lambda: ctx._kernel.timeline.pass_time(1000))
    assert ctx.query_rt_values_ex()[1] >= first + 1000


def test_only_the_raw_clock_can_be_asked_for(ctx: Context) -> None:
    with pytest.raises(PyverbsRDMAError) as info:
        ctx.query_rt_values_ex(comp_mask=2)
    assert info.value.error_code == errno.EINVAL
    assert ctx.query_rt_values_ex(comp_mask=0) == (0, 0)


def test_moderation_limits_are_reported_and_kept(ctx: Context) -> None:
    caps = ctx.query_device_ex().cq_mod_caps
    assert (caps.max_cq_count, caps.max_cq_period) == (65535, 4095)
    cq = CQ(ctx, 4)
    kernel = ctx._kernel
    assert kernel.execute(messages.ModifyCq(cq._handle, caps.max_cq_count, caps.max_cq_period)) is None
    for count, period in ((caps.max_cq_count + 1, 0), (0, caps.max_cq_period + 1), (-1, 0)):
        with pytest.raises(messages.VerbsError) as info:
            kernel.execute(messages.ModifyCq(cq._handle, count, period))
        assert info.value.errno == errno.EINVAL


def test_a_moderated_cq_gives_one_event_for_many_completions(ctx: Context) -> None:
    channel = CompChannel(ctx)
    pair = Pair(ctx, CQ(ctx, 16, None, channel))
    ctx._kernel.execute(messages.ModifyCq(pair.cq._handle, 4, 0))
    pair.cq.req_notify()
    fill(pair, range(4))
    channel.get_cq_event(pair.cq)
    assert pair.cq.poll(9)[0] == 4


def test_an_extended_cq_that_ignores_overrun_lives_on(ctx: Context) -> None:
    attr = CqInitAttrEx(cqe=3, comp_mask=e.IBV_CQ_INIT_ATTR_MASK_FLAGS, flags=e.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN)
    pair = Pair(ctx, CQEX(ctx, attr))
    fill(pair, range(6))
    ctx._kernel.settle(lambda: False, 1_000_000)
    assert pair.left.query(e.IBV_QP_STATE)[0].qp_state == e.IBV_QPS_RTS


def test_a_failed_completion_has_a_vendor_error_of_ours(pair: Pair) -> None:
    pair.left.post_send(pair.write(8, rkey=pair.target.rkey + 1))
    (wc,) = pair.poll(1)
    assert wc.vendor_err == VENDOR_SYNDROME + e.IBV_WC_REM_ACCESS_ERR


def test_closing_a_cq_acknowledges_its_events(ctx: Context) -> None:
    channel = CompChannel(ctx)
    pair = Pair(ctx, CQ(ctx, 16, None, channel))
    pair.cq.req_notify()
    fill(pair, range(1))
    channel.get_cq_event(pair.cq)
    handle = pair.cq._handle
    assert ctx._kernel.unacknowledged["completion", handle] == 1
    pair.cq.close()
    assert ctx._kernel.unacknowledged["completion", handle] == 0


def test_a_qp_with_an_acknowledged_event_closes(pair: Pair) -> None:
    pair.left.post_send(pair.write(8, rkey=pair.target.rkey + 1))
    pair.poll(1)
    event = pair.ctx.get_async_event()
    assert event.event_type == e.IBV_EVENT_QP_ACCESS_ERR
    event.ack()
    pair.right.close()
