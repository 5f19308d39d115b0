"""How soft-RoCE fails: each habit on the default device and on the profile ``rxe``, side by side. A guest with Linux
7.3 and rdma-core 56.1 answered as the second value says."""

from __future__ import annotations

import pytest

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR, MW, MWBind, MWBindInfo
from tests.lab.worlds import ACCESS, WRONG_KEY, Ends, errno_of, in_both

RC, UC, UD = e.IBV_QPT_RC, e.IBV_QPT_UC, e.IBV_QPT_UD
WRITE, WRITE_IMM, READ = e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_WRITE_WITH_IMM, e.IBV_WR_RDMA_READ
ADD, LOCAL_INV = e.IBV_WR_ATOMIC_FETCH_AND_ADD, e.IBV_WR_LOCAL_INV


@pytest.mark.parametrize(("opcode", "default", "rxe"), [
    (e.IBV_WR_SEND, "LOC_PROT_ERR", "WR_FLUSH_ERR"), (WRITE, "LOC_PROT_ERR", "WR_FLUSH_ERR"),
    (READ, "LOC_PROT_ERR", "LOC_PROT_ERR"), (ADD, "LOC_PROT_ERR", "LOC_PROT_ERR"),
    (LOCAL_INV, "LOC_QP_OP_ERR", "WR_FLUSH_ERR"),
])  # fmt: skip
def test_a_request_that_the_requester_finds_bad(opcode: int, default: str, rxe: str) -> None:
    def scenario(ends: Ends) -> tuple[object, str]:
        a, _b = ends.pair()
        ends.post(a, opcode, ends.out(8, key=WRONG_KEY), imm=WRONG_KEY)
        return ends.statuses(ends.near), ends.state(a)

    assert in_both(scenario) == (([(1, default)], "ERR"), ([(1, rxe)], "ERR"))


def test_requests_before_a_bad_one_are_flushed_with_it() -> None:
    """rxe does not wait for their ACK."""

    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        ends.recv(b)
        ends.send(a, wr_id=1)
        ends.send(a, ends.out(key=WRONG_KEY), wr_id=2)
        return ends.statuses(ends.near), ends.statuses(ends.far)

    received = [(100, "SUCCESS")]
    assert in_both(scenario) == (([(1, "SUCCESS"), (2, "LOC_PROT_ERR")], received),
                                 ([(1, "WR_FLUSH_ERR"), (2, "WR_FLUSH_ERR")], received))  # fmt: skip


@pytest.mark.parametrize("wrong", [{"length": 16}, {"key": WRONG_KEY}], ids=["short", "bad key"])
def test_a_receive_that_does_not_fit(wrong: dict[str, int]) -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        ends.recv(b, ends.into(**wrong))
        ends.send(a)
        return ends.statuses(ends.near), ends.statuses(ends.far)

    told = ([(1, "REM_INV_REQ_ERR")], [(100, "LOC_LEN_ERR")])
    if "key" in wrong:
        told = ([(1, "REM_OP_ERR")], [(100, "LOC_PROT_ERR")])
    assert in_both(scenario) == (told, ([(1, "REM_OP_ERR")], [(100, "LOC_QP_OP_ERR")]))


def test_a_refused_write_with_immediate_has_its_receive_tell() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        ends.recv(b)
        ends.post(a, WRITE_IMM, ends.out(), rkey=WRONG_KEY)
        return ends.statuses(ends.near), ends.statuses(ends.far), ends.events()

    asked = [(1, "REM_ACCESS_ERR")]
    assert in_both(scenario) == ((asked, [(100, "WR_FLUSH_ERR")], ["QP_ACCESS_ERR"]),
                                 (asked, [(100, "REM_ACCESS_ERR")], []))  # fmt: skip


def test_events_that_rxe_does_not_raise() -> None:
    """An invalid request: QP_REQ_ERR. A refused one without a receive: QP_ACCESS_ERR, which rxe raises as well."""

    def invalid(ends: Ends) -> list[str]:
        a, _b = ends.pair(max_dest_rd_atomic=0)
        ends.post(a, READ, ends.out())
        ends.statuses(ends.near)
        return ends.events()

    def denied(ends: Ends) -> list[str]:
        a, _b = ends.pair()
        ends.post(a, WRITE, ends.out(), rkey=WRONG_KEY)
        ends.statuses(ends.near)
        return ends.events()

    assert in_both(invalid) == (["QP_REQ_ERR"], [])
    assert in_both(denied) == (["QP_ACCESS_ERR"], ["QP_ACCESS_ERR"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_datagram_too_long_for_its_receive(shared: bool) -> None:
    """Dropped; rxe uses up the receive of an SRQ for it."""

    def scenario(ends: Ends) -> object:
        srq = ends.shared() if shared else None
        a, b = ends.pair(UD, srq)
        for wr_id, length in ((100, 50), (101, 512)):
            ends.recv(srq or b, ends.into(length), wr_id)
        ah = ends.handle()
        for wr_id, length in ((1, 64), (2, 8)):
            ends.send(a, ends.out(length), wr_id, ah=ah, qpn=b.qp_num)
        assert ends.statuses(ends.near) == [(1, "SUCCESS"), (2, "SUCCESS")]
        return ends.statuses(ends.far), ends.state(b)

    default, rxe = in_both(scenario)
    assert default == ([(100, "SUCCESS")], "RTS")
    assert rxe == (([(100, "REM_INV_REQ_ERR"), (101, "SUCCESS")], "RTS") if shared else default)


def test_a_message_of_uc_too_long_for_its_receive() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair(UC)
        ends.recv(b, ends.into(16))
        ends.send(a)
        return ends.statuses(ends.far), ends.state(b)

    assert in_both(scenario) == (([], "RTS"), ([(100, "LOC_QP_OP_ERR")], "ERR"))


def test_a_datagram_above_the_mtu() -> None:
    """rxe takes it for sent, and sends nothing (IBA C10-93.1.1 in rxe_req.c)."""

    def scenario(ends: Ends) -> object:
        a, b = ends.pair(UD)
        ends.recv(b, ends.into(8192))
        ends.send(a, ends.out(5000), ah=ends.handle(), qpn=b.qp_num)
        return ends.statuses(ends.near), ends.statuses(ends.far), ends.state(a)

    assert in_both(scenario) == (([(1, "LOC_LEN_ERR")], [], "SQE"), ([(1, "SUCCESS")], [], "RTS"))


def test_there_is_no_sqe() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair(UD)
        ends.send(a, ends.out(key=WRONG_KEY), ah=ends.handle(), qpn=b.qp_num)
        return ends.statuses(ends.near), ends.state(a)

    assert in_both(scenario) == (([(1, "LOC_PROT_ERR")], "SQE"), ([(1, "WR_FLUSH_ERR")], "ERR"))


def test_a_read_of_a_qp_that_may_have_none_waits_for_ever() -> None:
    def scenario(ends: Ends) -> object:
        a, _b = ends.pair(max_rd_atomic=0)
        ends.post(a, READ, ends.out())
        return ends.statuses(ends.near), ends.state(a)

    assert in_both(scenario) == (([(1, "LOC_QP_OP_ERR")], "ERR"), ([], "RTS"))


def test_receives_posted_in_err() -> None:
    """rxe leaves them until a send is posted."""

    def scenario(ends: Ends) -> object:
        _a, b = ends.pair()
        attr = ends.attributes(b)
        attr.qp_state = e.IBV_QPS_ERR
        b.modify(attr, e.IBV_QP_STATE)
        ends.recv(b)
        late = ends.statuses(ends.far)
        ends.send(b, wr_id=2)
        return late, ends.statuses(ends.far)

    flushed, sent = (100, "WR_FLUSH_ERR"), (2, "WR_FLUSH_ERR")
    assert in_both(scenario) == (([flushed], [sent]), ([], [sent, flushed]))


@pytest.mark.parametrize("fails", ["solicited", "error"])
def test_a_cq_armed_for_solicited_completions(fails: str) -> None:
    def scenario(ends: Ends) -> bool:
        a, b = ends.pair()
        ends.far.req_notify(True)
        ends.recv(b, ends.into(64 if fails == "solicited" else 8))
        ends.send(a, flags=e.IBV_SEND_SOLICITED if fails == "solicited" else 0)
        ends.statuses(ends.near)
        return bool(ends.channel_events())

    assert in_both(scenario) == (True, fails == "solicited")


def test_sends_that_overrun_a_cq() -> None:
    """rxe loses the completion and raises CQ_ERR each time; the QP goes on."""

    def scenario(ends: Ends) -> object:
        small = ends.cq(1)
        a, _b = ends.pair(near=small)
        for wr_id in range(3):
            ends.post(a, WRITE, ends.out(), wr_id)
        ends.statuses(ends.far)
        return [wr_id for wr_id, _ in ends.statuses(small)], ends.events(), ends.state(a)

    assert in_both(scenario) == (([0, 1], ["CQ_ERR", "QP_FATAL"], "ERR"), ([0], ["CQ_ERR", "CQ_ERR"], "RTS"))


def test_a_receive_that_overruns_a_cq_takes_its_qp_to_err() -> None:
    def scenario(ends: Ends) -> object:
        small = ends.cq(1)
        a, b = ends.pair(far=small)
        for wr_id in (100, 101):
            ends.recv(b, wr_id=wr_id)
            ends.send(a, wr_id=wr_id - 100)
        return ends.statuses(ends.near), ends.statuses(small), ends.state(b)

    _default, rxe = in_both(scenario)
    assert rxe == ([(0, "SUCCESS"), (1, "RETRY_EXC_ERR")], [(100, "SUCCESS")], "ERR")


def test_the_ack_timer_goes_on_in_an_rnr_wait() -> None:
    """The peer answers, and still the retries are used up: the timer's 4 ms are less than the wait's 12 ms."""

    def scenario(ends: Ends) -> object:
        a, _b = ends.pair(rnr_retry=7, min_rnr_timer=20)
        ends.send(a)
        return ends.statuses(ends.near)

    assert in_both(scenario) == ([], [(1, "RETRY_EXC_ERR")])


def test_seven_retries_are_without_end() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair(retry_cnt=7, timeout=1)
        attr = ends.attributes(b)
        attr.qp_state = e.IBV_QPS_RESET
        b.modify(attr, e.IBV_QP_STATE)
        ends.send(a)
        return ends.statuses(ends.near)

    assert in_both(scenario) == ([(1, "RETRY_EXC_ERR")], [])


def test_what_is_posted_before_rts_is_executed_with_the_next_request() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.qps()
        told = [errno_of(ends.send, a, wr_id=1)]
        for qp, peer in ((a, b), (b, a)):
            qp.to_rts(ends.attributes(peer))
        for wr_id in (100, 101):
            ends.recv(b, wr_id=wr_id)
        early = ends.statuses(ends.near)
        ends.send(a, wr_id=2)
        return told, early, ends.statuses(ends.near)

    assert in_both(scenario) == ((["EINVAL"], [], [(2, "SUCCESS")]),
                                 (["EINVAL"], [], [(1, "SUCCESS"), (2, "SUCCESS")]))  # fmt: skip


def test_what_is_posted_in_sqd_waits_for_the_next_request_in_rts() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        attr = ends.attributes(b)
        attr.qp_state = e.IBV_QPS_SQD
        a.modify(attr, e.IBV_QP_STATE)
        ends.post(a, WRITE, ends.out(), 1)
        told = ends.events()
        attr.qp_state = e.IBV_QPS_RTS
        a.modify(attr, e.IBV_QP_STATE)
        early = ends.statuses(ends.near)
        ends.post(a, WRITE, ends.out(), 2)
        return told, early, ends.statuses(ends.near)

    first, second = (1, "SUCCESS"), (2, "SUCCESS")
    assert in_both(scenario) == (([], [first], [second]), (["SQ_DRAINED"], [], [first, second]))


def test_a_uc_qp_may_post_what_only_rc_can() -> None:
    def scenario(ends: Ends) -> object:
        a, _b = ends.pair(UC)
        return errno_of(ends.post, a, READ, ends.out()), ends.statuses(ends.near), ends.state(a)

    assert in_both(scenario) == (("EINVAL", [], "RTS"), ("ok", [(1, "WR_FLUSH_ERR")], "ERR"))


@pytest.mark.parametrize(("length", "at", "default", "rxe"), [
    (8, 4, [(1, "REM_INV_REQ_ERR")], "EINVAL"), (4, 0, [(1, "LOC_LEN_ERR")], "EINVAL"),
    (16, 0, [(1, "LOC_LEN_ERR")], [(1, "SUCCESS")]),
])  # fmt: skip
def test_the_library_looks_at_atomics(length: int, at: int, default: object, rxe: object) -> None:
    """Misaligned and short ones it refuses, of a longer element it uses 8 bytes."""

    def scenario(ends: Ends) -> object:
        a, _b = ends.pair()
        told = errno_of(ends.post, a, ADD, ends.out(length), at=at)
        return told if told != "ok" else ends.statuses(ends.near)

    assert in_both(scenario) == (default, rxe)


@pytest.mark.parametrize(("opcode", "default", "rxe"), [
    (e.IBV_WR_SEND, ("LOC_PROT_ERR", 0), ("WR_FLUSH_ERR", 1)), (READ, ("LOC_PROT_ERR", 0), ("LOC_PROT_ERR", 3)),
])  # fmt: skip
def test_elements_are_looked_at_when_their_bytes_are_due(opcode: int, default: object, rxe: object) -> None:
    """A SEND whose second element is bad: its first packet leaves. A READ's request leaves, and two responses come."""

    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        ends.recv(b, ends.into(4096))
        sent = int(ends.nic.packets_sent)
        ends.post(a, opcode, ends.out(1024), more=ends.out(1024, key=WRONG_KEY))
        (found,) = ends.statuses(ends.near)
        return found[1], int(ends.nic.packets_sent) - sent

    assert in_both(scenario) == (default, rxe)


def test_a_bad_element_of_a_receive_that_the_message_does_not_reach() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        ends.recv(b, ends.into(64), more=ends.into(64, key=WRONG_KEY))
        ends.send(a, ends.out(8))
        return ends.statuses(ends.near)

    assert in_both(scenario) == ([(1, "REM_OP_ERR")], [(1, "SUCCESS")])


def test_a_window_opens_all_of_its_region() -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.pair()
        region = MR(ends.pd, 8192, ACCESS | e.IBV_ACCESS_MW_BIND)
        window = MW(ends.pd, e.IBV_MW_TYPE_1)
        info = MWBindInfo(region, region.buf + 64, 64, e.IBV_ACCESS_REMOTE_WRITE)
        b.bind_mw(window, MWBind(info, e.IBV_SEND_SIGNALED, wr_id=9))
        assert ends.statuses(ends.far) == [(9, "SUCCESS")]
        ends.post(a, WRITE, ends.out(8), rkey=window.rkey, at=region.buf - ends.target.buf)
        return ends.statuses(ends.near)

    assert in_both(scenario) == ([(1, "REM_ACCESS_ERR")], [(1, "SUCCESS")])


def test_a_controlled_qkey_is_taken_as_it_is() -> None:
    """The specification has the sender's own in its place (IBA 10.2.5, recalled)."""

    def scenario(ends: Ends) -> object:
        a, b = ends.pair(UD)
        ends.recv(b, ends.into(512))
        ends.send(a, ends.out(8), ah=ends.handle(), qpn=b.qp_num, qkey=1 << 31)
        return ends.statuses(ends.far)

    assert in_both(scenario) == ([(100, "SUCCESS")], [])
