"""Completion queues: ring handling, events, both polling interfaces."""

import errno

import pytest

from nicemu.pyverbs.cq import CQ, CQEX, WC, CompChannel, CqInitAttrEx, PollCqAttr
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import messages
from tests.pyverbs.conftest import fake_cq


def test_an_empty_cq_lets_time_run_once(kernel, cq):
    assert cq.poll(5) == (0, [])
    assert kernel.polls == 1


def test_polling_for_nothing_does_nothing(kernel, cq):
    assert cq.poll(0) == (0, []) and kernel.polls == 0


def test_completions_that_time_brings_are_returned(kernel, cq):
    kernel.on_poll = lambda: fake_cq(kernel, cq).complete(7, wr_id=3)
    count, (wc,) = cq.poll()
    assert (count, wc.wr_id, wc.qp_num) == (1, 3, 7)


def test_a_filled_cq_does_not_let_time_run(kernel, cq):
    fake_cq(kernel, cq).complete(7)
    cq.poll(10)
    assert kernel.polls == 0


def test_all_members(kernel, cq):
    fake_cq(kernel, cq).complete(7, 1 << 63, 128, 5, src_qp=9, byte_len=100, imm=0x01020304, flags=2)
    wc = cq.poll()[1][0]
    assert (wc.wr_id, wc.status, wc.opcode, wc.vendor_err, wc.byte_len) == (1 << 63, 5, 128, 0, 100)
    assert (wc.qp_num, wc.src_qp, wc.imm_data, wc.wc_flags, wc.pkey_index) == (7, 9, 0x01020304, 2, 0)
    assert (wc.slid, wc.sl, wc.dlid_path_bits) == (0, 0, 0)


def test_owner_words_over_many_passes(kernel, cq):
    device, seen = fake_cq(kernel, cq), []
    for wr_id in range(23):
        device.complete(7, wr_id)
        if wr_id % 3 == 2:
            seen += [wc.wr_id for wc in cq.poll(10)[1]]
    seen += [wc.wr_id for wc in cq.poll(10)[1]]
    assert seen == list(range(23))


def test_the_consumer_counter_is_shown_to_the_device(kernel, cq):
    device = fake_cq(kernel, cq)
    for wr_id in range(4):
        device.complete(7, wr_id)
    assert cq.poll(3)[0] == 3
    assert device.consumed == 3


def test_wc_survives_the_reuse_of_its_slot(kernel, cq):
    device = fake_cq(kernel, cq)
    device.complete(7, 1)
    wc = cq.poll()[1][0]
    for wr_id in range(2, 6):
        device.complete(7, wr_id)
    assert wc.wr_id == 1


def test_wc_of_the_program():
    wc = WC(wr_id=1, status=10, slid=5, sl=2, dlid_path_bits=1, wc_flags=3)
    assert (wc.slid, wc.sl, wc.dlid_path_bits) == (5, 2, 1)
    assert "status                : remote access error \n" in str(wc)
    assert "WC flags              : GRH With immediate  \n" in str(wc)


def test_bad_depth_is_einval(ctx):
    with pytest.raises(PyverbsRDMAError, match=r"Failed to create a CQ. Errno: 22"):
        CQ(ctx, 0)


def test_depth_may_be_a_float(ctx):
    assert CQ(ctx, 1000 / 2).cqe == 500


@pytest.mark.parametrize(("solicited", "value"), [(False, 1), (True, 2)])
def test_arming_rings_the_doorbell(kernel, cq, solicited, value):
    cq.req_notify(solicited)
    assert kernel.doorbells == [(0, 1, fake_cq(kernel, cq).response.number, value)]


def test_an_event_is_for_the_expected_cq(kernel, ctx):
    channel = CompChannel(ctx)
    cq, other = CQ(ctx, 4, None, channel), CQ(ctx, 4, None, channel)
    kernel.do_GetCqEvent = lambda command: cq._handle
    channel.get_cq_event(cq)
    with pytest.raises(PyverbsRDMAError, match="Received event on an unexpected CQ"):
        channel.get_cq_event(other)


def test_channel_closes_its_cqs(kernel, ctx):
    channel = CompChannel(ctx)
    cq = CQ(ctx, 4, None, channel)
    assert channel.fd == 99 and cq.comp_channel is channel
    channel.close()
    assert [type(c) for c in kernel.log[-2:]] == [messages.DestroyCq, messages.DestroyCompChannel]
    assert cq.cq == 0


def test_extended_cq_polls_in_batches(kernel, ctx):
    cq = CQEX(ctx, CqInitAttrEx(cqe=4, wc_flags=0xFF))
    device = fake_cq(kernel, cq)
    for wr_id in (5, 6):
        device.complete(7, wr_id, imm=9, timestamp=1234)
    assert cq.start_poll(PollCqAttr()) == 0 and cq.wr_id == 5
    assert cq.poll_next() == 0 and cq.wr_id == 6 and cq.read_imm_data() == 9 and cq.read_timestamp() == 1234
    assert cq.poll_next() == errno.ENOENT
    assert device.consumed == 0
    cq.end_poll()
    assert device.consumed == 2


def test_extended_cq_that_is_empty(kernel, ctx):
    cq = CQEX(ctx, CqInitAttrEx())
    assert cq.start_poll(None) == errno.ENOENT
    cq.end_poll()
    assert kernel.polls == 1


@pytest.mark.parametrize(
    "attr, code",
    [
        ({"wc_flags": 1 << 12}, errno.EOPNOTSUPP),
        ({"flags": 4, "comp_mask": 1}, errno.EINVAL),
        ({"comp_mask": 2}, errno.EINVAL),
        ({"comp_mask": 4}, errno.EINVAL),
        ({"cqe": 0}, errno.EINVAL),
    ],
)
def test_extended_cq_with_what_the_device_lacks(ctx, attr, code):
    with pytest.raises(PyverbsRDMAError) as info:
        CQEX(ctx, CqInitAttrEx(**attr))
    assert info.value.error_code == code


def test_flags_that_comp_mask_does_not_name_do_not_count(ctx):
    CQEX(ctx, CqInitAttrEx(flags=0xFFFF, parent_domain=PD(ctx)))


def test_a_pd_that_is_no_parent_domain_has_no_allocator_for_a_cq(ctx):
    with pytest.raises(PyverbsRDMAError) as info:
        CQEX(ctx, CqInitAttrEx(comp_mask=2, parent_domain=PD(ctx)))
    assert info.value.error_code == errno.EINVAL


def test_a_poll_attribute_with_a_comp_mask_is_refused(ctx):
    attr = PollCqAttr()
    attr.comp_mask = 1
    assert CQEX(ctx).start_poll(attr) == errno.EINVAL


def test_a_batch_in_a_batch_is_refused_unless_single_threaded(kernel, ctx):
    single = CqInitAttrEx(cqe=4, comp_mask=1, flags=1)
    for attr, refused in ((CqInitAttrEx(cqe=4), True), (single, False)):
        cq = CQEX(ctx, attr)
        fake_cq(kernel, cq).complete(7, 5)
        assert cq.start_poll(None) == 0
        if refused:
            with pytest.raises(PyverbsUserError):
                cq.start_poll(None)
        else:
            assert cq.start_poll(None) == errno.ENOENT
        cq.end_poll()
        assert cq.start_poll(None) == errno.ENOENT


def test_poll_next_needs_a_batch(ctx):
    cq = CQEX(ctx)
    with pytest.raises(PyverbsUserError):
        cq.poll_next()
    assert cq.start_poll(None) == errno.ENOENT
    with pytest.raises(PyverbsUserError):
        cq.poll_next()


READS = {
    1: "read_byte_len",
    2: "read_imm_data",
    4: "read_qp_num",
    8: "read_src_qp",
    16: "read_slid",
    32: "read_sl",
    64: "read_dlid_path_bits",
    128: "read_timestamp",
    2048: "read_completion_wallclock_ns",
}


@pytest.mark.parametrize("bit", READS)
def test_a_member_is_read_only_if_it_was_asked_for(ctx, bit):
    getattr(CQEX(ctx, CqInitAttrEx(wc_flags=bit)), READS[bit])()
    with pytest.raises(PyverbsUserError, match="created without IBV_WC_EX_WITH_"):
        getattr(CQEX(ctx, CqInitAttrEx(wc_flags=0x87F & ~bit)), READS[bit])()


def test_opcode_flags_and_vendor_error_are_always_there(ctx):
    cq = CQEX(ctx)
    assert (cq.read_opcode(), cq.read_wc_flags(), cq.read_vendor_err()) == (0, 0, 0)
