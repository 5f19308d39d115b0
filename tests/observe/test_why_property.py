"""Whatever an event log says, and in whatever order: paths are whole, and their shares sum to one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu.observe.trace_reader import Event
from nicemu.observe.work_requests import requests

QPN, INDEX, PSN = st.sampled_from([2, 5]), st.integers(0, 5), st.integers(0, 12)
NIC, NS = st.sampled_from(["nic0", "nic1"]), st.integers(1, 3000)
REQUESTS = st.sampled_from(["SEND_ONLY", "SEND_FIRST", "SEND_LAST", "READ_REQUEST", "WRITE_ONLY", "FETCH_ADD", 0xA4])
ANSWERS = st.sampled_from(["ACKNOWLEDGE", "READ_RESP_ONLY", "READ_RESP_LAST", "ATOMIC_ACK"])
FAULT = st.sampled_from(["REQUESTER_SEND", "REQUESTER_READ", "RESPONDER_RECV", "RESPONDER_RDMA"])
WR = st.sampled_from(["SEND", "RDMA_WRITE", "RDMA_READ", "ATOMIC_FETCH_AND_ADD"])
THREAD = st.integers(1, 2)


def device(name: str, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """An event of one of the NICs."""
    return st.tuples(NIC, st.just(name), st.fixed_dictionaries(fields))


def host(name: str, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """An event of the host."""
    return st.tuples(st.just("host"), st.just(name), st.fixed_dictionaries(fields))


PACKET = {"psn": PSN, "qpn": QPN, "bytes": NS, "source": QPN}
EVENT = st.one_of(
    host("doorbell", thread=THREAD, nic=st.integers(0, 1), bank=st.sampled_from(["SEND", "RECV"]), number=QPN,
         producer=INDEX),
    device("DOORBELL", qpn=QPN, bank=st.just("SEND"), producer=INDEX),
    device("WQE", qpn=QPN, index=INDEX, opcode=WR, first_psn=PSN, bytes=NS, last_psn=PSN),
    device("WQE_DONE", qpn=QPN, index=INDEX, status=st.sampled_from(["SUCCESS", "WR_FLUSH_ERR"]), opcode=WR,
           signaled=st.integers(0, 1)),
    device("SEND", opcode=REQUESTS, **PACKET), device("RECEIVE", opcode=REQUESTS, **PACKET),
    device("SEND", opcode=ANSWERS, **PACKET), device("RECEIVE", opcode=ANSWERS, **PACKET),
    device("DROP", opcode=REQUESTS, psn=PSN, qpn=QPN), device("DROP", opcode=ANSWERS, psn=PSN, qpn=QPN),
    device("LINK_OUT", opcode=REQUESTS, psn=PSN, qpn=QPN, wire_ns=NS),
    device("LINK_DROP", opcode=REQUESTS, psn=PSN, qpn=QPN, reason=st.just("QUEUE")),
    device("SQ_HELD", qpn=QPN, index=INDEX, reason=st.sampled_from(["READS", "WINDOW", "CREDITS", "FENCE"])),
    device("DMA", mr=THREAD, page=THREAD, bytes=NS, write=st.just(0)),
    device("IOTLB_MISS", mr=THREAD, page=THREAD, ns=NS), device("QP_CACHE_MISS", qpn=QPN, ns=NS),
    device("NAK", qpn=QPN, psn=PSN, syndrome=st.just(96)),
    device("RNR_NAK", qpn=QPN, psn=PSN, timer=st.integers(0, 31)), device("RNR_WAIT", qpn=QPN, psn=PSN, ns=NS),
    device("RNR_OVER", qpn=QPN), device("TIMEOUT", qpn=QPN, psn=PSN), device("RETRANSMIT", qpn=QPN, psn=PSN),
    device("FAULT", type=FAULT, qpn=QPN, index=INDEX, mr=THREAD, page=THREAD),
    device("EQE", eqn=st.just(3), type=st.just("PAGE_FAULT"), subtype=st.just(0),
           data=st.tuples(QPN, st.integers(0, 3)).map(lambda pair: pair[0] | pair[1] << 32)),
    device("INTERRUPT", vector=st.just(3), lost=st.integers(0, 1), flight_ns=NS),
    host("fault_work", thread=THREAD, nic=st.integers(0, 1), qpn=QPN, type=FAULT, mr=THREAD),
    *(host(name, thread=THREAD) for name in ("fault_in", "fault_in_done", "mtt_update", "mtt_update_done")),
    host("fault_resolved", thread=THREAD, nic=st.integers(0, 1), qpn=QPN, type=FAULT),
    device("RESUME", type=FAULT, qpn=QPN, error=st.just(0)),
    device("QP_STATE", qpn=QPN, state=st.sampled_from(["RTS", "RESET", "ERR"])),
)  # fmt: skip
START = [
    Event(0, f"nic{nic}", "QP_PATH", {"qpn": qpn, "peer": 1 - nic, "peer_qpn": 7 - qpn, "type": "RC"})
    for nic in (0, 1)
    for qpn in (2, 5)
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), EVENT), max_size=60))
def test_paths_are_contiguous_and_whole_whatever_a_log_says(steps):
    time, log = 0, list(START)
    for step, (who, name, fields) in steps:
        time += step
        log.append(Event(time, who, name, fields))
    for request in requests(log):
        at = request.posted
        for piece in request.path:
            assert piece.start == at < piece.end
            at = piece.end
        # one that never completes ends with the log, or where its queue was reset
        assert (at <= time if request.end is None else at == request.end) or not request.path
        assert request.end is None or sum(piece.ns for piece in request.path) == request.latency_ns
