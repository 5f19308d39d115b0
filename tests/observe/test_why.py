"""``nicemu why``: every nanosecond of a work request has one cause, and known patterns are said in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nicemu.config import load_config
from nicemu.observe.causes import Cause, Stage, fault_cause
from nicemu.observe.send_queues import WorkRequest
from nicemu.observe.trace_reader import Event, read, value
from nicemu.observe.why import Analysis, analyse, parse, shares
from nicemu.observe.why_text import headline, path, plain, report
from nicemu.observe.work_requests import requests
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, madvise, mmap
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, ON_DEMAND, Ends

DAMMING = Path(__file__).parents[1] / "data" / "damming.log"
PAGE, DONTNEED = 4096, 4


def events(text: str) -> list[Event]:
    """``TIME WHO NAME field=value ...``, a line each; sorted by time."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        time, who, name, *words = line.split()
        fields = {key: value(given) for key, _, given in (word.partition("=") for word in words)}
        found.append(Event(int(time), who, name, fields))
    return sorted(found, key=lambda event: event.time)


CONNECTED = """
0 nic0 QP_PATH qpn=2 peer=1 peer_qpn=5 type=RC
0 nic1 QP_PATH qpn=5 peer=0 peer_qpn=2 type=RC
"""
POSTED = """
100 host doorbell thread=0 nic=0 bank=SEND number=2 producer=1
250 nic0 DOORBELL qpn=2 bank=SEND producer=1
550 nic0 WQE qpn=2 index=0 opcode=SEND first_psn=7 bytes=64 last_psn=7
1000 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
1000 nic0 LINK_OUT opcode=SEND_ONLY psn=7 qpn=5 wire_ns=20
"""
ANSWERED = """
{0}000 nic1 RECEIVE opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
{0}450 nic1 SEND opcode=ACKNOWLEDGE psn=7 qpn=2 bytes=0 source=5
{0}900 nic0 RECEIVE opcode=ACKNOWLEDGE psn=7 qpn=2 bytes=0 source=5
{0}950 nic0 WQE_DONE qpn=2 index=0 status=SUCCESS opcode=SEND signaled=1
"""


def one(text: str) -> WorkRequest:
    """The only work request of a log."""
    (found,) = requests(events(CONNECTED + text))
    return found


def by_cause(request: WorkRequest) -> dict[str, int]:
    """Nanoseconds by cause."""
    return dict(shares(request.path))


def assert_whole(request: WorkRequest) -> None:
    """Its path is contiguous, from post to completion, and every part of it has a length."""
    at = request.posted
    for piece in request.path:
        assert piece.start == at and piece.ns > 0
        at = piece.end
    assert request.end in (None, at)


# -- the parts of a path


def test_a_request_without_trouble_is_fetched_sent_executed_and_answered():
    request = one(POSTED + ANSWERED.format(2))
    assert [(piece.cause, piece.ns) for piece in request.path] == [
        (Cause.POST, 150), (Cause.FETCH, 300), (Cause.SEND, 450), (Cause.WIRE, 1000), (Cause.RESPONDER, 450),
        (Cause.ANSWER, 450), (Cause.COMPLETE, 50),
    ]  # fmt: skip
    assert_whole(request)


def test_an_iotlb_miss_is_taken_out_of_the_time_to_send():
    text = POSTED.replace("1000 nic0 SEND", "1000 nic0 DMA mr=1 page=3 bytes=64 write=0\n1000 nic0 SEND").replace(
        "1000 nic0 DMA", "550 nic0 IOTLB_MISS mr=1 page=3 ns=300\n1000 nic0 DMA"
    )
    found = by_cause(one(text + ANSWERED.format(2)))
    assert (found[Cause.TRANSLATE], found[Cause.SEND]) == (300, 150)


def test_a_qp_context_that_is_not_cached_is_said():
    text = POSTED.replace("250 nic0", "250 nic0 QP_CACHE_MISS qpn=2 ns=200\n250 nic0")
    found = by_cause(one(text + ANSWERED.format(2)))
    assert (found[Cause.CONTEXT], found[Cause.FETCH]) == (200, 100)


@pytest.mark.parametrize(("reason", "cause"), [("READS", Cause.READS), ("WINDOW", Cause.WINDOW),
                                               ("CREDITS", Cause.CREDITS), ("FENCE", Cause.FENCE)])  # fmt: skip
def test_a_queue_that_may_not_go_on_says_why(reason, cause):
    text = POSTED.replace("1000 nic0 SEND", f"600 nic0 SQ_HELD qpn=2 index=0 reason={reason}\n1000 nic0 SEND")
    assert by_cause(one(text + ANSWERED.format(2)))[cause] == 400


def test_a_packet_that_waits_for_the_link_says_so():
    text = POSTED.replace("1000 nic0 LINK_OUT", "1700 nic0 LINK_OUT")
    found = by_cause(one(text + ANSWERED.format(2)))
    assert (found[Cause.LINK], found[Cause.WIRE]) == (700, 300)


def test_what_nobody_answers_waits_for_the_ack_timer():
    lost = "1200 nic0 LINK_DROP opcode=SEND_ONLY psn=7 qpn=5 reason=QUEUE\n900000 nic0 TIMEOUT qpn=2 psn=7\n"
    again = "900100 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2\n"
    request = one(POSTED + lost + again + ANSWERED.format(901))
    assert by_cause(request)[Cause.ACK_TIMER] == 900_000 - 1200
    assert request.timeouts == 1 and request.resent == 1
    assert_whole(request)


def test_a_lost_packet_that_is_naked_waits_for_the_nak():
    lost = """
    2000 nic1 RECEIVE opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
    2000 nic1 DROP opcode=SEND_ONLY psn=7 qpn=5
    2000 nic1 NAK qpn=5 psn=7 syndrome=96
    3000 nic0 RETRANSMIT qpn=2 psn=7
    3400 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
    """
    found = by_cause(one(POSTED + lost + ANSWERED.format(4)))
    assert (found[Cause.NAK], found[Cause.AGAIN]) == (1000, 400)


RNR = """
2000 nic1 RECEIVE opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
2000 nic1 {fault}
2000 nic1 RNR_NAK qpn=5 psn=7 timer=9
3000 nic0 RNR_WAIT qpn=2 psn=7 ns=240000
{between}
243000 nic0 RNR_OVER qpn=2
243500 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
"""


def test_an_rnr_wait_without_a_receive_is_explained_until_one_is_posted():
    between = "43000 host doorbell thread=0 nic=1 bank=RECV number=5 producer=1"
    request = one(POSTED + RNR.format(fault="DROP opcode=SEND_ONLY psn=7 qpn=5", between=between)
                  + ANSWERED.format(244))  # fmt: skip
    found = by_cause(request)
    assert (found[Cause.NOT_READY], found[Cause.TIMER_LONGER]) == (40_000, 200_000)
    assert_whole(request)


FAULT = "FAULT type=RESPONDER_RECV qpn=5 index=0 mr=3 page=8"
FAULT_STEPS = """
12000 nic1 EQE eqn=3 type=PAGE_FAULT subtype=0 data=8589934597
14000 nic1 INTERRUPT vector=3 lost=0 flight_ns=1500
15000 host fault_work thread=9 nic=1 qpn=5 type=RESPONDER_RECV mr=3
15500 host fault_in thread=9 mr=3 pages=1
17500 host fault_in_done thread=9 mr=3
18000 host mtt_update thread=9 mr=3 pages=1
21000 host mtt_update_done thread=9 mr=3
22000 host fault_resolved thread=9 nic=1 qpn=5 type=RESPONDER_RECV pages=1 failed=0
33000 nic1 RESUME type=RESPONDER_RECV qpn=5 error=0 merged=0
"""


def test_the_path_follows_a_page_fault_of_the_responder_through_its_stages():
    request = one(POSTED + RNR.format(fault=FAULT, between=FAULT_STEPS) + ANSWERED.format(244))
    found = by_cause(request)
    assert {stage: found.get(fault_cause("responder", stage), 0) for stage in Stage} == {
        Stage.INTERRUPT: 11_500, Stage.MODERATION: 500, Stage.DRIVER: 3000, Stage.MM: 2000, Stage.MTT: 3000,
        Stage.RESUME: 11_000,
    }  # fmt: skip
    assert found[Cause.TIMER_LONGER] == 243_000 - 33_000
    assert {piece.detail for piece in request.path} == {"", "nic1, MR 3 page 8"}
    assert_whole(request)


def test_a_request_that_never_completes_is_followed_to_the_end_of_the_log():
    request = one(POSTED + "5000 nic0 DMA mr=1 page=0 bytes=1 write=0\n")
    assert request.end is None
    assert request.path[-1].end == 5000
    assert_whole(request)


# -- findings


def findings(text: str) -> str:
    return "\n".join(analyse(events(CONNECTED + text)).findings)


def test_an_rnr_timer_longer_than_the_fault_names_the_code_that_would_do():
    text = findings(POSTED + RNR.format(fault=FAULT, between=FAULT_STEPS).replace("timer=9", "timer=12")
                    + ANSWERED.format(244))  # fmt: skip
    assert "RNR timer longer than needed: 86%" in text
    assert "min_rnr_timer 12 waits 640.0 us, 3 (30.00 us) would do" in text


def test_an_rnr_timer_shorter_than_the_fault_is_said():
    early = RNR.format(fault=FAULT, between="").replace("243", "13")
    again = """
    15000 nic1 RECEIVE opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
    15000 nic1 RNR_NAK qpn=5 psn=7 timer=9
    16000 nic0 RNR_WAIT qpn=2 psn=7 ns=20000
    36000 nic0 RNR_OVER qpn=2
    36500 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2
    """
    text = findings(POSTED + early + FAULT_STEPS + again + ANSWERED.format(37))
    assert "RNR timer shorter than the page fault: 1 of 2 RNR waits" in text


def test_damming_is_said_at_a_glance_with_the_times():
    found = analyse(read(DAMMING))
    (text,) = [text for text in found.findings if text.startswith("Packet damming")]
    assert "nic0 QP 2 #1 (RDMA_READ) reached the responder at 72.57 us, behind #0" in text
    assert "only the ACK timer brought it back, at 504.6 ms, after 500.0 ms of waiting" in text
    assert found.findings[0] == text
    assert headline(found.slowest[0]) == f"99 % {Cause.ACK_TIMER}"


def test_a_timeout_that_is_no_damming_is_not_called_so():
    lost = "900000 nic0 TIMEOUT qpn=2 psn=7\n900100 nic0 SEND opcode=SEND_ONLY psn=7 qpn=5 bytes=64 source=2\n"
    text = findings(POSTED + lost + ANSWERED.format(901))
    assert "ACK timeouts: 1 requests" in text
    assert "damming" not in text


def test_a_rate_of_congestion_control_is_a_cause():
    two = (
        POSTED.replace("SEND_ONLY", "SEND_FIRST").replace("last_psn=7", "last_psn=8")
        + """
    600 nic0 RATE qpn=2 kbps=1000
    500000 nic0 SEND opcode=SEND_LAST psn=8 qpn=5 bytes=64 source=2
    501000 nic1 RECEIVE opcode=SEND_LAST psn=8 qpn=5 bytes=64 source=2
    """
    )
    found = by_cause(one(two))
    assert found[Cause.PACED] == 500_000 - 1000
    assert "Congestion control" in findings(two)


def test_completion_events_that_moderation_held_are_said():
    text = findings(
        POSTED
        + ANSWERED.format(2)
        + """
    1500 host wait thread=0 what=GetCqEvent
    2950 nic0 CQE cqn=1 qpn=2 status=SUCCESS opcode=0 index=0
    6950 nic0 EQE eqn=4 type=COMP subtype=0 data=1
    10950 nic0 INTERRUPT vector=4 lost=0 flight_ns=1000
    """
    )
    assert "CQ moderation: 1 completion events were held, 4.000 us on average" in text
    assert "Interrupt moderation: 1 completion events were held, 3.000 us on average" in text


def test_packet_flood_is_many_queues_that_send_reads_again_while_their_own_pages_are_missing():
    log = ""
    for qpn in range(2, 7):
        log += f"""
        0 nic0 QP_PATH qpn={qpn} peer=1 peer_qpn={qpn + 10} type=RC
        0 nic1 QP_PATH qpn={qpn + 10} peer=0 peer_qpn={qpn} type=RC
        100 nic0 DOORBELL qpn={qpn} bank=SEND producer=1
        200 nic0 WQE qpn={qpn} index=0 opcode=RDMA_READ first_psn=0 bytes=64 last_psn=0
        400 nic0 FAULT type=REQUESTER_READ qpn={qpn} index=0 mr=1 page=0
        9000 nic0 RESUME type=REQUESTER_READ qpn={qpn} error=0 merged=0
        9500 nic0 WQE_DONE qpn={qpn} index=0 status=SUCCESS opcode=RDMA_READ signaled=1
        """
        log += "".join(f"{300 + 500 * i} nic0 SEND opcode=READ_REQUEST psn=0 qpn={qpn + 10} bytes=0 source={qpn}\n"
                       for i in range(5))  # fmt: skip
    assert "Packet flood: 5 QPs sent 5 READs again 20 times" in findings(log)


def test_failed_requests_come_first():
    text = findings(POSTED + "5000 nic0 WQE_DONE qpn=2 index=0 status=RETRY_EXC_ERR opcode=SEND signaled=1\n")
    assert text.startswith("Failed work requests: RETRY_EXC_ERR 1.")


# -- real labs


@pytest.fixture
def traced(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The log of a lab that the test opens; its configuration by name, else the default one."""
    log = tmp_path / "trace.log"
    session.reset()
    session.configure(load_config(getattr(request, "param", None), {"trace": str(log)}))
    yield log
    session.reset()


def on_demand(ends: Ends, length: int = PAGE) -> MR:
    """A region whose pages nobody has touched."""
    address = mmap(length=length, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
    return MR(ends.pd, length, ACCESS | ON_DEMAND, address=address)


def analysed(log: Path) -> Analysis:
    session.current().flush()
    return analyse(read(log), keep=1000)


def test_a_send_whose_gather_faults_waits_59_percent_for_the_interrupt_and_35_for_the_resume(traced):
    ends = Ends()
    near, far = ends.pair()
    region = on_demand(ends)
    ends.recv(far, ends.into(PAGE))
    ends.send(near, SGE(region.buf, PAGE, region.lkey))
    assert ends.statuses(ends.near) == [(1, "SUCCESS")]
    (request,) = analysed(traced).slowest
    assert_whole(request)
    total = request.latency_ns
    found = by_cause(request)
    assert found[fault_cause("requester", Stage.INTERRUPT)] / total == pytest.approx(0.59, abs=0.02)
    assert found[fault_cause("requester", Stage.RESUME)] / total == pytest.approx(0.35, abs=0.02)
    text = headline(request)
    assert "waiting for the interrupt (firmware)" in text and "resume (firmware)" in text
    region.close()
    ends.ctx.close()


@pytest.mark.parametrize("traced", ["lossy"], indirect=True)
def test_every_nanosecond_of_every_request_of_a_lossy_run_is_attributed_once(traced):
    ends = Ends()
    near, far = ends.pair(retry_cnt=7, rnr_retry=7, timeout=8)
    region = on_demand(ends, 8 * PAGE)
    operations = [e.IBV_WR_SEND, e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ, e.IBV_WR_ATOMIC_FETCH_AND_ADD]
    for number in range(48):
        opcode = operations[number % 4]
        if opcode == e.IBV_WR_SEND:
            ends.recv(far, SGE(region.buf, 4 * PAGE, region.lkey))
        length = 8 if opcode == e.IBV_WR_ATOMIC_FETCH_AND_ADD else 3 * PAGE
        ends.post(near, opcode, SGE(region.buf + PAGE, length, region.lkey), number)
        if number % 8 == 7:
            assert {status for _, status in ends.statuses(ends.near)} == {"SUCCESS"}
            madvise(region.buf, 8 * PAGE, DONTNEED)
        ends.far.poll(32)
    found = analysed(traced)
    region.close()
    ends.ctx.close()
    assert (found.requests, found.unfinished) == (48, 0)
    for request in found.slowest:
        assert_whole(request)
        assert sum(piece.ns for piece in request.path) == request.latency_ns
    assert found.ns == sum(total.ns for total in found.causes.values()) == sum(r.latency_ns for r in found.slowest)
    assert Cause.UNKNOWN not in found.causes


# -- what people type and read


@pytest.mark.parametrize(("text", "meaning"), [("5:12", (None, 5, 12)), ("QP 5 #12", (None, 5, 12)),
                                               ("nic1 QP 5 #12", (1, 5, 12)), ("nic1/5:12", (1, 5, 12)),
                                               ("5 12", (None, 5, 12)), ("qp5#12", (None, 5, 12))])  # fmt: skip
def test_a_work_request_is_named_by_qp_and_number(text, meaning):
    asked = parse(text)
    assert asked is not None
    assert (asked.nic, asked.qpn, asked.index) == meaning


@pytest.mark.parametrize("text", ["", "5", "x:1", "1:2:3"])
def test_other_names_are_none(text):
    assert parse(text) is None


def test_the_report_has_findings_causes_with_bars_and_the_slowest():
    lines = [plain(line) for line in report(analyse(read(DAMMING)), "damming.log")]
    assert lines[0] == "damming.log: 2 send work requests in 504.5 ms of virtual time, 1 page faults"
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert [title.split(" (")[0] for title in titles[1:]] == ["Findings", "Top causes", "Slowest work requests"]
    assert any(line.endswith(Cause.ACK_TIMER) and "#####" in line for line in lines)


def test_a_path_is_a_table_whose_shares_sum_to_100_percent():
    (request, _) = analyse(read(DAMMING)).slowest
    rows = [plain(line) for line in path(request) if line.share is not None]
    assert sum(float(row.split("%")[0].split()[-1]) for row in rows) == pytest.approx(100, abs=0.05 * len(rows))


def test_a_perfetto_trace_says_the_same_as_the_text_log(tmp_path):
    said = []
    for name in ("trace.log", "trace.pftrace"):
        session.reset()
        session.configure(load_config(None, {"trace": str(tmp_path / name)}))
        ends = Ends()
        near, far = ends.pair()
        region = on_demand(ends)
        ends.recv(far, ends.into(PAGE))
        ends.send(near, SGE(region.buf, PAGE, region.lkey))
        assert ends.statuses(ends.near) == [(1, "SUCCESS")]
        region.close()
        ends.ctx.close()
        session.reset()
        said.append([plain(line) for line in report(analyse(read(tmp_path / name)), "trace")])
    assert said[0] == said[1]


@pytest.mark.parametrize(("traced", "is_dammed"), [("connectx5", True), (None, False)], indirect=["traced"])
def test_two_reads_inside_a_fault_are_dammed_on_a_connectx_and_not_by_default(traced, is_dammed):
    ends = Ends()
    near, _ = ends.pair(timeout=12, min_rnr_timer=14, retry_cnt=7, rnr_retry=7)
    region = on_demand(ends)
    for number in range(2):
        ends.post(near, e.IBV_WR_RDMA_READ, ends.out(8), number, rkey=region.rkey, at=region.buf - ends.target.buf)
    assert {status for _, status in ends.statuses(ends.near)} == {"SUCCESS"}
    found = analysed(traced)
    assert any(text.startswith("Packet damming: nic0 QP 2 #1") for text in found.findings) is is_dammed
    assert (by_cause(found.slowest[0]).get(Cause.ACK_TIMER, 0) > 20_000_000) is is_dammed
    for request in found.slowest:
        assert_whole(request)
    region.close()
    ends.ctx.close()
