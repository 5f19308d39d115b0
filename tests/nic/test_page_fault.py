"""Page faults: the four classes, what each suspends, what goes on the wire, how they end (NPF paper, mlx5 odp.c)."""

import pytest

from nicemu.abi.rings import FaultSubtype, FaultType
from nicemu.abi.verbs import AsyncEvent, QpState, WcStatus
from nicemu.wire.opcode import RcOpcode
from tests.nic.conftest import Rc, connected
from tests.nic.testbench import WrOpcode

WRITE, READ, SEND = WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.SEND
ACK = RcOpcode.ACKNOWLEDGE


def serve(rc: Rc, region, write: bool = True, limit: int = 40) -> list[dict[str, int]]:
    """Play the driver: map exactly the faulting page, resume, until nothing more happens."""
    found = []
    for _ in range(limit):
        for _ in range(100_000):
            faults = rc.bench.faults()
            if faults or not rc.bench.engine_step():
                break
        if not faults:
            return found
        for fault in faults:
            region.map((fault["va"] - region.va) // 4096, 1, write)
            rc.bench.resume(fault["token"])
        found += faults
    raise AssertionError("faults without end")


def rnr_naks(rc) -> int:
    """RNR NAKs sent."""
    return int(rc.bench.device.row.rnr_naks_sent)


# Requester, gather: SEND or WRITE payload ----------------------------------------------------------------------------


def test_a_missing_payload_page_stops_the_send_queue_without_a_sign_on_the_wire(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    bench.log()
    rc.write(1, 100, offset=50)
    fault = bench.fault()
    assert (fault["type"], fault["subtype"], fault["qpn"]) == (FaultType.REQUESTER_SEND, FaultSubtype.WQE, rc.a.number)
    assert (fault["key"], fault["va"], fault["last"]) == (rc.local.key, rc.local.va + 50, 0)
    bench.run_for(10_000_000_000)
    assert bench.sent() == [] and bench.device.row.timeouts == 0
    rc.local.map(0, 1)
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:100] == rc.local.data[50:150]
    assert bench.sent() == [RcOpcode.WRITE_ONLY, ACK]


def test_packets_before_the_missing_page_go_out_and_are_not_sent_again(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.local.map(0, 2)
    bench.log()
    rc.write(1, 16384)
    fault = bench.fault()
    assert (fault["va"], fault["committed"]) == (rc.local.va + 8192, 8192)
    rc.local.map(2, 2)
    bench.resume(fault["token"])
    bench.run()
    requests = [b for kind, _, a, b, *_ in bench.trace() if kind.name == "SEND" and a != ACK]
    assert len(requests) == len(set(requests)) == 16
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data == rc.local.data


def test_other_qps_go_on_while_one_is_suspended(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.write(1, 8)
    bench.fault()
    rc.b.post_send(7, WRITE, rc.remote.sge(8), remote=rc.remote.va, rkey=rc.remote.key)
    bench.run()
    assert rc.b.statuses() == [(7, 0)] and rc.a.statuses() == []


def test_requests_behind_a_suspended_one_wait(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.write(1, 8)
    rc.a.post_send(2, WRITE, remote=rc.remote.va, rkey=rc.remote.key, inline=b"x")
    fault = bench.fault()
    assert rc.a.statuses() == []
    rc.local.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("pages", [1, 3])
def test_every_missing_page_of_a_message_faults_in_turn(rc_cold_local, pages):
    rc = rc_cold_local
    rc.write(1, pages * 4096)
    faults = serve(rc, rc.local)
    assert [fault["va"] - rc.local.va for fault in faults] == [4096 * page for page in range(pages)]
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[: pages * 4096] == rc.local.data[: pages * 4096]


def test_a_send_fault_that_cannot_be_resolved(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    before = rc.remote.data
    rc.write(1, 8)
    rc.write(2, 8)
    bench.resume(bench.fault()["token"], error=1)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR), (2, WcStatus.WR_FLUSH_ERR)]
    assert rc.a.row().state == QpState.ERR and rc.b.row().state == QpState.RTS and rc.remote.data == before


def test_a_read_only_page_is_good_enough_to_send_from(rc_cold_local):
    rc_cold_local.local.map(write=False)
    rc_cold_local.write(1, 8192)
    rc_cold_local.bench.run()
    assert rc_cold_local.a.statuses() == [(1, 0)] and rc_cold_local.bench.faults() == []


# Requester, scatter: READ and atomic responses -----------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["read", "atomic"])
def test_a_response_that_hits_a_missing_page_is_dropped_and_asked_for_again(rc_cold_local, operation):
    rc, bench = rc_cold_local, rc_cold_local.bench
    bench.log()
    old = rc.remote.data[:8]
    rc.read(1, 8) if operation == "read" else rc.add(1, 3)
    fault = bench.fault()
    assert (fault["type"], fault["subtype"]) == (FaultType.REQUESTER_READ, FaultSubtype.WQE)
    assert (fault["key"], fault["va"]) == (rc.local.key, rc.local.va)
    bench.run_for(10_000_000_000)
    assert bench.device.row.timeouts == 0 and len(bench.sent()) == 2
    rc.local.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.local.data[:8] == old
    assert bench.sent()[0] == bench.sent()[2] and bench.sent()[1] == bench.sent()[3]
    if operation == "atomic":
        assert int.from_bytes(rc.remote.data[:8], "little") == (int.from_bytes(old, "little") + 3) % 2**64


def test_a_read_goes_on_from_the_first_missing_response(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.local.map(0, 2)
    bench.log()
    rc.read(1, 16384)
    faults = serve(rc, rc.local)
    assert [(f["va"] - rc.local.va, f["committed"]) for f in faults] == [(8192, 8192), (12288, 12288)]
    psns = [b - rc.a.psn for kind, _, a, b, *_ in bench.trace() if kind.name == "SEND" and a == RcOpcode.READ_REQUEST]
    assert [psn % (1 << 24) for psn in psns] == [0, 8, 12]
    assert rc.a.statuses() == [(1, 0)] and rc.local.data == rc.remote.data


def test_the_rewind_of_a_read_consumes_no_retry(bench):
    rc = connected(bench, local=False, RETRY_CNT=1, RNR_RETRY=1)
    rc.read(1, 16384)
    assert len(serve(rc, rc.local)) == 4
    assert rc.a.statuses() == [(1, 0)]
    assert (rc.a.row().retries, rc.a.row().rnr_retries) == (1, 1)


def test_a_read_only_page_faults_for_response_data(rc_cold_local):
    rc = rc_cold_local
    rc.local.map(write=False)
    rc.read(1, 100)
    (fault,) = serve(rc, rc.local)
    assert fault["type"] == FaultType.REQUESTER_READ and rc.a.statuses() == [(1, 0)]


def test_a_read_fault_that_cannot_be_resolved(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    before = rc.local.data
    rc.read(1, 8)
    rc.write(2, 0)
    bench.resume(bench.fault()["token"], error=1)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.LOC_PROT_ERR), (2, WcStatus.WR_FLUSH_ERR)]
    assert rc.local.data == before


# Responder -----------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "write": (WRITE, FaultType.RESPONDER_RDMA),
    "read": (READ, FaultType.RESPONDER_RDMA),
    "atomic": (WrOpcode.ATOMIC_FETCH_AND_ADD, FaultType.RESPONDER_RDMA),
    "send": (SEND, FaultType.RESPONDER_RECV),
}
every_operation = pytest.mark.parametrize("name", OPERATIONS)


def post(rc, name, length=8):
    """One request of this kind to the cold remote region."""
    opcode, _ = OPERATIONS[name]
    rc.b.post_recv(5, rc.remote.sge())
    rc.a.post_send(1, opcode, rc.local.sge(length), remote=rc.remote.va, rkey=rc.remote.key, compare=1)


@every_operation
def test_a_missing_page_at_the_responder_is_rnr_naked_until_it_is_there(rc_cold_remote, name):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    post(rc, name)
    fault = bench.fault()
    assert fault["type"] == OPERATIONS[name][1] and fault["qpn"] == rc.b.number
    assert (fault["key"], fault["va"], fault["committed"]) == (rc.remote.key, rc.remote.va, 0)
    bench.run_for(100_000)
    assert rnr_naks(rc) > 2 and rc.a.statuses() == []
    rc.remote.map()
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)]
    assert [s for _, s in rc.b.statuses()] == ([0] if name == "send" else [])


@every_operation
def test_rounds_of_rnr_while_a_fault_is_open_are_merged_into_it(rc_cold_remote, name):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    post(rc, name)
    fault = bench.fault()
    bench.run_for(1_000_000)
    assert bench.faults() == []
    assert bench.device.row.page_faults == 1
    assert 0 <= bench.device.row.page_faults_merged - (rnr_naks(rc) - 1) <= 1  # the last NAK may be on its way
    assert fault["token"] // 4 == int(bench.device.row.qp_base) + rc.b.number


@every_operation
def test_faults_of_all_kinds_end_with_rnr_retries_exhausted(bench, name):
    rc = connected(bench, remote=False, RNR_RETRY=2)
    post(rc, name)
    bench.run()
    assert rc.a.statuses() == [(1, WcStatus.RNR_RETRY_EXC_ERR)] and rnr_naks(rc) == 3


@every_operation
def test_a_responder_fault_that_cannot_be_resolved(rc_cold_remote, name):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    before = rc.remote.data
    post(rc, name)
    rc.write(2, 0)
    bench.resume(bench.fault()["token"], error=1)
    bench.run()
    status = WcStatus.REM_OP_ERR if name == "send" else WcStatus.REM_ACCESS_ERR
    assert rc.a.statuses() == [(1, status), (2, WcStatus.WR_FLUSH_ERR)]
    assert rc.b.statuses() == [(5, WcStatus.LOC_PROT_ERR if name == "send" else WcStatus.WR_FLUSH_ERR)]
    assert bench.asyncs() == ([] if name == "send" else [(AsyncEvent.QP_ACCESS_ERR, rc.b.number)])
    assert rc.remote.data == before and rc.b.row().state == QpState.ERR


def test_an_rdma_fault_tells_how_much_of_the_operation_is_left(rc_cold_remote):
    rc = rc_cold_remote
    rc.remote.map(0, 1)
    rc.write(1, 16384)
    faults = serve(rc, rc.remote)
    assert [(f["va"] - rc.remote.va, f["committed"], f["last"]) for f in faults] == [
        (4096, 4096, 12288), (8192, 8192, 8192), (12288, 12288, 4096)]  # fmt: skip
    assert all(f["subtype"] == FaultSubtype.RDMA for f in faults)
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data == rc.local.data


def test_a_receive_fault_names_its_wqe(rc_cold_remote):
    rc = rc_cold_remote
    rc.remote.map(0, 1)
    rc.b.post_recv(4, rc.remote.sge(4096))
    rc.b.post_recv(5, rc.remote.sge(4096, 4096), rc.remote.sge(4096, 8192))
    rc.send(1, 100)
    rc.send(2, 8192)
    faults = serve(rc, rc.remote)
    assert [(f["va"] - rc.remote.va, f["last"], f["subtype"]) for f in faults] == [
        (4096, 1, FaultSubtype.WQE), (8192, 1, FaultSubtype.WQE)]  # fmt: skip
    assert rc.b.statuses() == [(4, 0), (5, 0)] and rc.remote.data[4096:12288] == rc.local.data[:8192]


@pytest.mark.parametrize("opcode", [WRITE, READ, SEND])
def test_packets_behind_an_rnr_nak_are_dropped_in_silence(rc_cold_remote, opcode):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    rc.b.post_recv(5, rc.remote.sge())
    bench.log()
    rc.a.post_send(1, opcode, rc.local.sge(), remote=rc.remote.va, rkey=rc.remote.key)
    rc.write(2, 0)
    bench.run_for(9_000)
    assert bench.device.row.sequence_naks_sent == 0
    assert len([kind for kind, *_ in bench.trace() if kind.name == "RNR_NAK"]) == 1


def test_a_read_whose_second_page_is_missing_sends_the_first_and_naks_the_rest(rc_cold_remote):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    rc.remote.map(0, 1)
    bench.log()
    rc.read(1, 16384)
    faults = serve(rc, rc.remote)
    assert (faults[0]["va"] - rc.remote.va, faults[0]["committed"]) == (4096, 4096)
    assert rc.a.statuses() == [(1, 0)] and rc.local.data == rc.remote.data
    assert bench.device.row.timeouts == 0


def test_requests_queued_behind_a_faulted_read_are_done_after_it_in_order(rc_cold_remote):
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    warm = bench.mr(1)
    rc.read(1, 5000)
    rc.a.post_send(2, WRITE, rc.local.sge(64, 8192), remote=warm.va, rkey=warm.key)
    rc.read(3, 64, offset=12288, at=4096)
    serve(rc, rc.remote)
    assert rc.a.statuses() == [(1, 0), (2, 0), (3, 0)]
    assert rc.local.data[:5000] == rc.remote.data[:5000] and warm.data[:64] == rc.local.data[8192:8256]


def test_a_write_needs_the_write_bit_at_the_responder(rc_cold_remote):
    rc = rc_cold_remote
    rc.remote.map(write=False)
    rc.write(1, 8192)
    assert len(serve(rc, rc.remote)) == 2 and rc.a.statuses() == [(1, 0)]


def test_a_read_is_served_from_a_read_only_page(rc_cold_remote):
    rc_cold_remote.remote.map(write=False)
    rc_cold_remote.read(1, 8192)
    rc_cold_remote.bench.run()
    assert rc_cold_remote.a.statuses() == [(1, 0)] and rc_cold_remote.bench.faults() == []


def test_an_error_belongs_to_the_page_it_was_for(rc_cold_remote):
    """The driver could not bring a page in; it came by another way, and a later fault elsewhere is not to blame."""
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    rc.write(1, 8)
    fault = bench.fault()
    rc.remote.map(0, 1)
    bench.run_for(1_000_000)
    bench.resume(fault["token"], error=1)
    bench.run()
    assert rc.a.statuses() == [(1, 0)]
    rc.write(2, 8, at=8192)
    assert len(serve(rc, rc.remote)) == 1
    assert rc.a.statuses() == [(2, 0)]


# Several at once -----------------------------------------------------------------------------------------------------


def test_a_qp_can_have_all_four_faults_open(bench):
    """Each class has one of its own: SEND gather and READ scatter as requester, RDMA and receive as responder."""
    rc = connected(bench, local=False, remote=False)
    warm = bench.mr(4)
    rc.b.post_recv(1, rc.remote.sge(64))
    rc.a.post_send(1, SEND, warm.sge(8))
    bench.run_for(400_000)
    other = bench.faults()
    rc.b.post_send(2, READ, rc.remote.sge(8, 4096), remote=warm.va, rkey=warm.key)
    rc.b.post_send(3, WRITE, rc.remote.sge(8, 8192), remote=warm.va, rkey=warm.key)
    bench.run_for(400_000)
    other += bench.faults()
    assert sorted(f["type"] for f in other) == [
        FaultType.REQUESTER_SEND,
        FaultType.RESPONDER_RECV,
        FaultType.REQUESTER_READ,
    ]
    assert len({f["token"] for f in other}) == 3
    rc.remote.map()
    for fault in other:
        bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and sorted(rc.b.statuses()) == [(1, 0), (2, 0), (3, 0)]


def test_a_resume_without_the_page_faults_again(rc_cold_remote):
    """The driver collided with an invalidation and lets the hardware try again."""
    rc, bench = rc_cold_remote, rc_cold_remote.bench
    rc.write(1, 8)
    for _ in range(3):
        bench.resume(bench.fault()["token"])
    fault = bench.fault()
    rc.remote.map(0, 1)
    bench.resume(fault["token"])
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and bench.device.row.page_faults == 4


def test_a_fault_from_before_a_reset_is_not_reported_afterwards(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.write(1, 8)
    bench.step_until(lambda: rc.a.row().sq_suspended)
    rc.a.modify(1, STATE=QpState.RESET)
    bench.run()
    assert bench.faults() == [] and rc.a.cq.poll() == []


def test_a_resume_after_a_reset_does_not_touch_the_new_life(rc_cold_local):
    rc, bench = rc_cold_local, rc_cold_local.bench
    rc.write(1, 8)
    token = bench.fault()["token"]
    rc.a.modify(1, STATE=QpState.RESET)
    rc.a.record.word(0, 0)
    rc.a.connect(rc.b)
    bench.resume(token, error=1)
    bench.run()
    assert rc.a.row().state == QpState.RTS and rc.a.cq.poll() == []
