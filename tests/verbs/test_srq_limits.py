"""Receives shared by several QPs: exhaustion, the limit event, the last WQE event, sizes."""

from __future__ import annotations

from pyverbs import enums as e
from pyverbs.srq import SrqAttr

from .failures import (
    ERR,
    FLUSHED,
    LONGER_THAN_RECEIVE,
    NUMBER_OPEN,
    PATIENT,
    RTS,
    break_by_hand,
    check,
    events,
    gather,
    outcome,
    restart,
    shared_receives,
)
from .memory import Remote
from .sides import UD, attributes, connect, datagram, datagrams, recv, refusal, send, state, write
from .waiting import leftovers, successes

__all__ = ["check"]
RESIZE = "left open: a device without IBV_DEVICE_SRQ_RESIZE may refuse, or do more than it says"
REACHED, LAST = "SRQ_LIMIT_REACHED", "QP_LAST_WQE_REACHED"


def serving(near, far, count=1, **options):
    """An SRQ of far, and `count` pairs (a, b) of which each b receives from it."""
    changes = {**PATIENT, **{key: options.pop(key) for key in ("rnr_retry", "min_rnr_timer") if key in options}}
    srq = shared_receives(far, **options)
    made = []
    for _ in range(count):
        a, b = near.qp(), far.qp(srq=srq)
        connect(a, b, **changes)
        made.append((a, b))
    return srq, made


def arm(srq, limit):
    srq.modify(SrqAttr(srq_limit=limit), e.IBV_SRQ_LIMIT)


def limit_of(srq):
    return srq.query().srq_limit


def test_several_qps_take_from_one_srq_in_its_order(near, far):
    srq, pairs = serving(near, far, 3)
    source, target = near.region(), far.region()
    source.fill(1)
    for wr_id in range(6):
        recv(srq, target.sge(wr_id * 64, 64), wr_id=wr_id)
    for turn in range(6):
        send(pairs[turn % 3][0], source.sge(turn * 64, 64), wr_id=turn)
        (done,) = successes(far.cq, 1)
        assert (done.wr_id, done.qp_num) == (turn, pairs[turn % 3][1].qp_num)
    successes(near.cq, 6)
    assert target.bytes(0, 384) == source.bytes(0, 384)


def test_an_empty_srq_is_a_receiver_not_ready(near, far, check):
    srq, ((a, b),) = serving(near, far, rnr_retry=1, min_rnr_timer=1)
    source, target = near.region(), far.region()
    recv(srq, target.sge(), wr_id=7)
    for wr_id in (1, 2, 3):
        send(a, source.sge(0, 8), wr_id=wr_id)
    check(a, b, near=[(1, "SUCCESS"), (2, "RNR_RETRY_EXC_ERR"), (3, FLUSHED)], far=[(7, "SUCCESS")],
          states=(ERR, RTS))  # fmt: skip


def test_a_receive_posted_late_to_an_empty_srq_serves_whoever_asks_first(near, far):
    srq, pairs = serving(near, far, 2, rnr_retry=7)
    source, target = near.region(), far.region()
    for wr_id, (a, _b) in enumerate(pairs):
        send(a, source.sge(0, 8), wr_id=wr_id)
    assert leftovers(near.cq) == []
    recv(srq, target.sge(), wr_id=7)
    assert successes(far.cq, 1)[0].wr_id == 7
    assert len(successes(near.cq, 1)) == 1
    recv(srq, target.sge(), wr_id=8)
    assert successes(far.cq, 1)[0].wr_id == 8
    successes(near.cq, 1)


def test_the_limit_event_comes_once_when_fewer_are_left(near, far):
    srq, ((a, _b),) = serving(near, far)
    source, target = near.region(), far.region()
    for wr_id in range(6):
        recv(srq, target.sge(), wr_id=wr_id)
    arm(srq, 4)
    for _ in range(2):  # 4 are left: not fewer than the limit
        send(a, source.sge(0, 8))
        successes(far.cq, 1)
    assert events(far) == []
    assert limit_of(srq) == 4
    for _ in range(3):
        send(a, source.sge(0, 8))
        successes(far.cq, 1)
    assert events(far, 1) == [REACHED]
    assert limit_of(srq) == 0
    assert events(near) == []


def test_a_limit_without_arming_has_no_event(near, far):
    srq, ((a, _b),) = serving(near, far)
    target = far.region()
    for wr_id in range(3):
        recv(srq, target.sge(), wr_id=wr_id)
    for _ in range(3):
        send(a, near.region().sge(0, 8))
        successes(far.cq, 1)
    assert events(far) == []


def test_an_armed_limit_works_again(near, far):
    srq, ((a, _b),) = serving(near, far)
    source, target = near.region(), far.region()
    for _turn in range(3):
        for wr_id in range(3):
            recv(srq, target.sge(), wr_id=wr_id)
        arm(srq, 3)
        for _ in range(3):
            send(a, source.sge(0, 8))
            successes(far.cq, 1)
        assert events(far, 1) == [REACHED]


def test_a_limit_above_what_is_there_fires_at_the_next_receive(near, far, accept):
    srq, ((a, _b),) = serving(near, far)
    target = far.region()
    recv(srq, target.sge(), wr_id=1)
    recv(srq, target.sge(), wr_id=2)
    arm(srq, 8)
    at_once = events(far)
    accept("events after arming", tuple(at_once), spec={(), (REACHED,)},
           why="left open: a device may say it when it is armed, or when the next receive is taken (rxe)")  # fmt: skip
    send(a, near.region().sge(0, 8))
    successes(far.cq, 1)
    assert at_once + events(far, 1 - len(at_once)) == [REACHED]


def test_limit_0_disarms(near, far):
    srq, ((a, _b),) = serving(near, far)
    target = far.region()
    for wr_id in range(4):
        recv(srq, target.sge(), wr_id=wr_id)
    arm(srq, 3)
    arm(srq, 0)
    for _ in range(4):
        send(a, near.region().sge(0, 8))
        successes(far.cq, 1)
    assert events(far) == []


def test_a_limit_beyond_the_srq_is_refused(far, accept):
    srq = shared_receives(far, max_wr=16)
    size = srq.query().max_wr
    accept("errno", refusal(arm, srq, size + 1), spec="EINVAL")


def test_a_limit_given_at_creation_is_armed_or_not(near, far, accept):
    """IBA 10.2.9.1 (recalled): an SRQ is created without a limit armed; verbs ignore srq_limit there."""
    srq, _pairs = serving(near, far, limit=2)
    accept("the limit of a new SRQ", limit_of(srq), spec=0, rxe=2,
           why="rxe is wrong: it takes srq_limit of ibv_create_srq, irrelevant there by the manual page")  # fmt: skip


def test_the_last_wqe_event_of_a_qp_that_goes_to_err(near, far, accept):
    srq, ((a, b),) = serving(near, far)
    recv(srq, far.region().sge(), wr_id=7)
    break_by_hand(b)
    accept("events", events(far, 1), spec=[LAST])
    assert gather(far.cq, 0) == []
    assert (state(a), state(b)) == (RTS, ERR)


def test_the_last_wqe_event_of_a_qp_that_fails(near, far, accept):
    srq, ((a, b),) = serving(near, far)
    recv(srq, far.region().sge(), wr_id=7)
    write(a, near.region().sge(0, 8), Remote(far.region().address, 1), wr_id=1)
    seen = outcome(a, b, 1, 0, 2)
    assert (seen.near, seen.far, seen.states) == ([(1, "REM_ACCESS_ERR")], [], (ERR, ERR))
    accept("events of the side that answered", sorted(seen.events[1]), spec=[LAST, "QP_ACCESS_ERR"][::-1])


def test_receives_of_the_srq_outlive_a_failed_qp(near, far):
    """They are not the QP's: they serve the others."""
    srq, ((a, b), (c, d)) = serving(near, far, 2)
    source, target = near.region(), far.region()
    for wr_id in (7, 8):
        recv(srq, target.sge(), wr_id=wr_id)
    write(a, source.sge(0, 8), Remote(target.address, 1), wr_id=1)
    assert gather(near.cq, 1) == [(1, "REM_ACCESS_ERR")]
    assert leftovers(far.cq, 4) == []
    for wr_id in (2, 3):
        send(c, source.sge(0, 8), wr_id=wr_id)
    assert [each.wr_id for each in successes(far.cq, 2)] == [7, 8]
    assert (state(b), state(d)) == (ERR, RTS)


def test_a_message_too_long_for_an_srq_receive(near, far, check):
    srq, ((a, b),) = serving(near, far)
    target = far.region()
    target.fill(2)
    before = target.bytes()
    recv(srq, target.sge(64, 64), wr_id=7)
    recv(srq, target.sge(64, 64), wr_id=8)
    send(a, near.region().sge(0, 65), wr_id=1)
    check(a, b, near=[(1, "REM_INV_REQ_ERR")], far=[(7, "LOC_LEN_ERR")], states=(ERR, ERR), events=([], [LAST]),
          rxe={"near": [(1, "REM_OP_ERR")], "far": [(7, "LOC_QP_OP_ERR")]},
          why=LONGER_THAN_RECEIVE)  # fmt: skip
    after = target.bytes()
    assert after[:64] + after[128:] == before[:64] + before[128:]


def test_the_other_qps_go_on_after_a_receive_error(near, far):
    srq, ((a, _b), (c, d)) = serving(near, far, 2)
    source, target = near.region(), far.region()
    recv(srq, target.sge(0, 4), wr_id=7)
    recv(srq, target.sge(0, 64), wr_id=8)
    send(a, source.sge(0, 64), wr_id=1)
    assert [name for _, name in gather(far.cq, 1)] != ["SUCCESS"]
    send(c, source.sge(0, 64), wr_id=2)
    assert gather(far.cq, 1) == [(8, "SUCCESS")]
    assert state(d) == RTS


def test_an_srq_holds_as_many_receives_as_it_says(far, accept):
    srq = shared_receives(far, max_wr=10)
    size = srq.query().max_wr
    assert size >= 10
    target = far.region()
    for wr_id in range(size):
        recv(srq, target.sge(), wr_id=wr_id)
    accept("one more", refusal(recv, srq, target.sge()), spec="ENOMEM")


def test_too_many_elements_are_refused(far, accept):
    srq = shared_receives(far, max_sge=1)
    count = srq.query().max_sge + 1
    target = far.region()
    accept("errno", refusal(recv, srq, [target.sge(0, 8)] * count), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)


def test_a_taken_receive_frees_its_place(near, far):
    srq, ((a, _b),) = serving(near, far, max_wr=4)
    size = srq.query().max_wr
    source, target = near.region(), far.region()
    for wr_id in range(size):
        recv(srq, target.sge(), wr_id=wr_id)
    for wr_id in range(3 * size):
        send(a, source.sge(0, 8), wr_id=wr_id)
        assert successes(far.cq, 1)[0].wr_id == (wr_id if wr_id < size else 100 + wr_id - size)
        recv(srq, target.sge(), wr_id=100 + wr_id)
    successes(near.cq, 3 * size)


def test_an_srq_grows_with_what_it_holds(near, far, accept):
    """Where IBV_DEVICE_SRQ_RESIZE is offered; then receives that were there stay, in their order."""
    srq, ((a, _b),) = serving(near, far, max_wr=8)
    size = srq.query().max_wr
    source, target = near.region(), far.region()
    for wr_id in range(size):
        recv(srq, target.sge(), wr_id=wr_id)
    answer = refusal(srq.modify, SrqAttr(max_wr=2 * size), e.IBV_SRQ_MAX_WR)
    offered = bool(far.context.query_device().device_cap_flags & e.IBV_DEVICE_SRQ_RESIZE)
    if not offered:
        accept("resizing without the capability", answer, spec={"EINVAL", "EOPNOTSUPP", "accepted"}, why=RESIZE)
    else:
        assert answer == "accepted"
    room = srq.query().max_wr
    for wr_id in range(size, room):
        recv(srq, target.sge(), wr_id=wr_id)
    for wr_id in range(room):
        send(a, source.sge(0, 8), wr_id=wr_id)
        assert successes(far.cq, 1)[0].wr_id == wr_id


def test_a_qp_with_an_srq_takes_no_receives_of_its_own(near, far, accept):
    _srq, ((_a, b),) = serving(near, far)
    accept("errno", refusal(recv, b, far.region().sge(), wr_id=1), spec={"EINVAL", "ENOMEM"}, why=NUMBER_OPEN)


def test_a_qp_that_was_reset_takes_from_the_srq_again(near, far):
    srq, ((a, b),) = serving(near, far)
    source, target = near.region(), far.region()
    recv(srq, target.sge(), wr_id=7)
    break_by_hand(b)
    restart(a), restart(b)
    connect(a, b)
    send(a, source.sge(0, 8), wr_id=1)
    assert successes(far.cq, 1)[0].wr_id == 7


def test_ud_takes_from_an_srq(near, far):
    srq = shared_receives(far)
    a, b = datagrams(near), far.qp(UD, srq=srq)
    b.to_rts(attributes(b))
    source, target = near.region(), far.region()
    source.fill(1)
    ah = near.address_of(far)
    for wr_id in (7, 8):
        recv(srq, target.sge(wr_id * 256, 256), wr_id=wr_id)
    for wr_id in (1, 2):
        datagram(a, source.sge(0, 100), ah, b.qp_num, wr_id=wr_id)
    done = successes(far.cq, 2)
    assert [(each.wr_id, each.byte_len) for each in done] == [(7, 140), (8, 140)]
    assert target.bytes(7 * 256 + 40, 100) == source.bytes(0, 100)


def test_a_datagram_for_an_empty_srq_is_lost(near, far):
    srq = shared_receives(far)
    a, b = datagrams(near), far.qp(UD, srq=srq)
    b.to_rts(attributes(b))
    source, target = near.region(), far.region()
    ah = near.address_of(far)
    datagram(a, source.sge(0, 10), ah, b.qp_num, wr_id=1)
    successes(near.cq, 1)
    assert leftovers(far.cq, 4) == []
    recv(srq, target.sge(), wr_id=7)
    assert leftovers(far.cq, 4) == []
    datagram(a, source.sge(0, 20), ah, b.qp_num, wr_id=2)
    assert successes(far.cq, 1)[0].byte_len == 60
