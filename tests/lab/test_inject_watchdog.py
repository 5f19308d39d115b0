"""A fault that leaves a program waiting for ever makes the watchdog speak; one that a program survives does not."""

import struct

import pytest

from nicemu.abi import rings
from nicemu.abi.rings import RECV_WQE, Doorbell
from nicemu.abi.verbs import QpAttrMask, QpState, SrqType
from nicemu.timeline import Quiescent
from nicemu.timeline.loop import IDLE_POLLS
from nicemu.uverbs import messages as m
from nicemu.uverbs import srq_messages as s
from tests.lab.pair import REMOTE, connected_pair
from tests.lab.test_inject import statuses
from tests.lab.test_inject_device import post_again
from tests.lab.test_watchdog import DONTNEED, ODP, post

MS = 1_000_000


def poll_in_vain(lab, cq, times=2 * IDLE_POLLS):
    """The program polls a CQ that stays empty."""
    for _ in range(times):
        assert lab.endpoint.poll(cq.number, 0, lambda: False) is False


def told(lab, call, *words):
    """The call ends with a report that has all these words, and the fault that did it."""
    with pytest.raises(Quiescent) as caught:
        call()
    text = str(caught.value)
    assert text in lab.watchdog.reports
    for word in (*words, f"inject.0: {lab.injected[0]}"):
        assert word in text, text
    assert "fired at" in text


def test_a_lost_send_doorbell_and_a_program_that_polls(faulty):
    lab = faulty({"event": "doorbell_loss"})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    number = qps[0].number
    told(lab, lambda: poll_in_vain(lab, cq), f"QP {number} (RTS): 1 requests posted that the device was not told of")


def test_a_program_that_rings_again_in_time_hears_nothing(faulty):
    lab = faulty({"event": "doorbell_loss"})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    poll_in_vain(lab, cq, IDLE_POLLS - 1)
    lab.endpoint.ring_doorbell(0, Doorbell.SEND, qps[0].number, 0)
    lab.timeline.pass_time(MS)
    poll_in_vain(lab, cq)
    assert lab.watchdog.reports == []


def test_a_lost_receive_doorbell_of_a_queue_that_flushes(faulty):
    lab = faulty({"event": "doorbell_loss", "kind": "recv"})
    cq, qps, *_ = connected_pair(lab)
    lab.endpoint.execute(m.ModifyQp(qps[0].handle, m.QpAttributes(qp_state=int(QpState.ERR)), int(QpAttrMask.STATE)))
    RECV_WQE.pack_into(qps[0].recv_ring, 0, 7, 0, 0)
    struct.pack_into("<q", qps[0].record, rings.DB_RECV, 1)
    lab.endpoint.ring_doorbell(0, Doorbell.RECV, qps[0].number, 0)
    lab.timeline.pass_time(MS)
    told(lab, lambda: poll_in_vain(lab, cq), "(ERR): 1 receive requests posted that the device was not told of")


def test_a_lost_doorbell_of_tag_operations(faulty):
    lab = faulty({"event": "doorbell_loss", "kind": "tag_ops"})
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    pd, cq = run(m.AllocPd(context)), run(m.CreateCq(context, 8))
    queue = run(s.CreateSrq(pd, 4, 1, type=int(SrqType.TM), cq=cq.handle, max_num_tags=4, max_ops=4))
    struct.pack_into("<q", queue.tags.record, rings.DB_SRQ_PRODUCER, 1)
    lab.endpoint.ring_doorbell(0, Doorbell.TAG_OPS, queue.number, 0)
    told(lab, lambda: poll_in_vain(lab, cq), "SRQ 1: 1 tag operations posted that the device was not told of")


def test_a_lost_arm_and_a_program_in_get_cq_event(faulty):
    lab = faulty({"event": "doorbell_loss", "kind": "cq_arm"})
    run = lab.endpoint.execute
    context = run(m.OpenDevice("nicemu0"))
    channel, _ = run(m.CreateCompChannel(context))
    cq = run(m.CreateCq(context, 4, channel))
    lab.endpoint.ring_doorbell(0, Doorbell.CQ_ARM, cq.number, 1)
    told(lab, lambda: run(m.GetCqEvent(channel)), "GetCqEvent: no event since")


@pytest.mark.parametrize("fault", [
    {"event": "doorbell_loss", "kind": "command"}, {"event": "lose_interrupt", "vector": 1},
    {"event": "doorbell_loss", "kind": "eq_arm"},
])  # fmt: skip
def test_a_command_that_nobody_hears_of_again(faulty, fault):
    lab = faulty(fault)
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))

    def create() -> None:
        for _ in range(2):  # a lost arm is felt one command later
            lab.endpoint.execute(m.CreateCq(context, 4))

    told(lab, create, "CreateCq waits for CREATE_CQ of nicemu0")


def test_an_invalidation_that_nobody_hears_of_again(faulty):
    lab = faulty({"event": "lose_interrupt", "vector": 1, "after_ns": 4 * MS})
    _, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    told(lab, lambda: lab.endpoint.process.madvise(address, 4096, DONTNEED), "madvise waits for ZAP_MTT of nicemu0")


@pytest.mark.parametrize("fault", [
    {"event": "page_fault_lost"}, {"event": "lose_interrupt", "vector": 3},
    {"event": "command_failure", "command": "PAGE_FAULT_RESUME"},
    {"event": "command_timeout", "command": "PAGE_FAULT_RESUME"},
])  # fmt: skip
def test_a_page_fault_that_nobody_ends(faulty, fault):
    lab = faulty(fault)
    cq, qps, address, mr = connected_pair(lab, ODP)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(5 * MS)
    told(lab, lambda: poll_in_vain(lab, cq, 30 * IDLE_POLLS), f"QP {qps[0].number}: suspended by a page fault since")


def test_a_lost_event_vector_and_a_program_in_get_async_event(faulty):
    lab = faulty({"event": "lose_interrupt", "vector": 2}, {"event": "port_down", "at_ns": MS})
    context = lab.endpoint.execute(m.OpenDevice("nicemu0"))
    told(lab, lambda: lab.endpoint.execute(m.GetAsyncEvent(context)), "EQ 2 (async events): 1 not consumed")


def test_queues_that_failed_and_were_flushed_are_not_taken_for_untold(faulty):
    lab = faulty({"event": "wqe_corrupt", "field": "lkey", "value": 0})
    cq, qps, address, mr = connected_pair(lab, REMOTE)
    for count in range(3):
        RECV_WQE.pack_into(qps[0].recv_ring, count * rings.recv_stride(2), count, 0, 0)
    struct.pack_into("<q", qps[0].record, rings.DB_RECV, 3)
    lab.endpoint.ring_doorbell(0, Doorbell.RECV, qps[0].number, 0)
    post(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    post_again(lab, qps[0], address, mr)
    lab.timeline.pass_time(MS)
    assert [status for _, status in statuses(lab, cq)] == [4, 5, 5, 5, 5]
    poll_in_vain(lab, cq)
    assert lab.watchdog.reports == []
