"""Rendezvous offload: READ, second completion, FIN (rdma-core, document on hardware tag matching)."""

import pytest

from nicemu.abi.tag_matching import RNDV_BYTES, RVH, TMH, TmhOp
from nicemu.abi.verbs import AsyncEvent, QpState, WcOpcode, WcStatus
from nicemu.config.nic_profile import NicProfile, TagMatchingProfile
from nicemu.nic.tag_list import TagState
from nicemu.wire.opcode import RcOpcode
from tests.nic.packets import DOUBLE, DROP, Wire
from tests.nic.tags import DATA_VALID, MATCH, Tagged, freed, header, received, request, tag_of
from tests.nic.testbench import Bench

BOTH = MATCH | DATA_VALID
COMPLETE = [(101, MATCH, 0), (101, DATA_VALID, 0)]


def ready(tagged: Tagged, room: int = 20_000) -> Tagged:
    """Tag 1 is posted under handle 1 with so much room, an untagged buffer under 10, and receives for FINs at the
    clients, in the last page of their memory."""
    tagged.srq.add(1, 1, tagged.remote.sge(room))
    tagged.srq.post(10, tagged.remote.sge(4096, 6 * 4096))
    for client in tagged.clients:
        client.post_recv(50, tagged.local.sge(64, 7 * 4096))
    tagged.run()
    return tagged


@pytest.fixture
def tagged(bench) -> Tagged:
    """Ready for one rendezvous of up to 20,000 bytes."""
    return ready(Tagged(bench))


def ask(tagged: Tagged, length: int, tag: int = 1, who: int = 0, offset: int = 0, **options: int) -> bytes:
    """Client ``who`` requests a rendezvous for ``length`` bytes of its memory; gives the request."""
    message = request(tag, tagged.local, length, offset, **options)
    tagged.send(message, who=who, at=6 * 4096)
    return message


@pytest.mark.parametrize("length", [0, 1, 1024, 1025, 20_000])
def test_the_device_reads_the_payload_and_tells_the_sender(tagged, length):
    message = ask(tagged, length, app_ctx=0xCAFE)
    match, data = tagged.run()
    assert received([match, data]) == COMPLETE
    assert (tag_of(match), freed(match), match["byte_len"]) == ((1, 0xCAFE), None, 0)
    assert (tag_of(data), freed(data), data["byte_len"]) == ((0, 0), 1, length)
    assert tagged.at_server(0, length) == tagged.local.data[:length]
    sent, fin = tagged.clients[0].cq.poll()
    assert (sent["wr_id"], sent["status"]) == (1, 0)
    assert (fin["wr_id"], fin["opcode"], fin["status"], fin["byte_len"]) == (50, WcOpcode.RECV, 0, RNDV_BYTES)
    assert tagged.local.data[7 * 4096 :][:RNDV_BYTES] == bytes([TmhOp.FIN]) + message[1:]


def test_the_match_is_told_before_the_payload_is_there(tagged):
    ask(tagged, 20_000)
    seen = []
    tagged.bench.step_until(lambda: seen.extend(tagged.cq.poll()) or seen)
    assert received(seen) == COMPLETE[:1] and tagged.srq.state(1) == TagState.CONSUMED
    assert tagged.at_server(19_000, 1000) != tagged.local.data[19_000:20_000]


def test_the_fin_leaves_after_the_payload_has_arrived(tagged):
    tagged.bench.log()
    ask(tagged, 5000)
    tagged.run()
    sent = tagged.bench.sent()
    assert sent.count(RcOpcode.READ_REQUEST) == 1
    last = len(sent) - 1 - sent[::-1].index(RcOpcode.READ_RESP_LAST)
    assert RcOpcode.SEND_ONLY in sent[last:], "the FIN"


def test_only_the_bytes_of_the_request_are_written(bench):
    tagged = Tagged(bench)
    tagged.srq.add(1, 1, tagged.remote.sge(100), tagged.remote.sge(5000, 4096), tagged.remote.sge(100, 12_288))
    tagged.clients[0].post_recv(50, tagged.local.sge(64, 7 * 4096))
    tagged.run()
    before = tagged.remote.data
    ask(tagged, 3000)
    assert received(tagged.run()) == COMPLETE
    after, payload = tagged.remote.data, tagged.local.data[:3000]
    assert after[:100] + after[4096:6996] == payload
    assert after[100:4096] == before[100:4096] and after[6996:] == before[6996:]


def test_many_at_once_from_two_senders(bench):
    tagged = Tagged(bench)
    for n in range(8):
        tagged.srq.add(n, n, tagged.remote.sge(2000, 2048 * n))
        tagged.clients[n % 2].post_recv(50 + n, tagged.local.sge(64, 7 * 4096))
    tagged.run()
    for n in range(8):
        message = request(n, tagged.local, 2000, 2000 * n)
        tagged.send(message, who=n % 2, at=6 * 4096 + 64 * n)
    done = received(tagged.run())
    assert [d[0] for d in done if d[1] == MATCH] == [100 + n for n in range(8)]
    assert sorted(d[0] for d in done if d[1] == DATA_VALID) == [100 + n for n in range(8)]
    for n in range(8):
        assert tagged.at_server(2048 * n, 2000) == tagged.local.data[2000 * n : 2000 * n + 2000]
    assert all(int(server.row().rndv_open) == 0 for server in tagged.servers)


def test_more_requests_than_the_send_queue_holds_wait(bench):
    tagged = Tagged(bench, tags=60)
    for n in range(60):
        tagged.srq.add(n, n, tagged.remote.sge(500, 512 * n))
    tagged.run()
    for n in range(60):
        tagged.clients[0].post_recv(n, tagged.local.sge(64, 7 * 4096))
        tagged.send(request(n, tagged.local, 500, 256 * n), at=4 * 4096 + 64 * n)
        if n % 30 == 29:
            tagged.bench.run_for(3000)
    done = received(tagged.run())
    assert sorted(d[0] for d in done if d[1] == DATA_VALID) == [100 + n for n in range(60)]


@pytest.mark.parametrize("action", [DROP, DOUBLE])
def test_it_survives_a_bad_wire(tagged, action):
    seen = [0]

    def spoil(row):
        seen[0] += 1
        return action if seen[0] % 5 == 3 else None

    message = ask(tagged, 20_000)
    Wire(tagged.bench, spoil).run()
    assert received(tagged.cq.poll()) == COMPLETE
    assert tagged.at_server(0, 20_000) == tagged.local.data[:20_000]
    assert [c["wr_id"] for c in tagged.clients[0].cq.poll()] in ([1, 50], [50, 1])
    assert TMH.unpack(message[:16])[2] == 1


# What software has to do ----------------------------------------------------------------------------------------------


def incomplete(tagged: Tagged, message: bytes) -> None:
    """The tag's buffer has both headers, and software is told so; the connection lives."""
    (done,) = tagged.run()
    assert received([done]) == [(101, BOTH, WcStatus.TM_RNDV_INCOMPLETE)]
    assert (done["byte_len"], freed(done), tag_of(done)[0]) == (RNDV_BYTES, 1, 1)
    assert tagged.at_server(0, RNDV_BYTES) == message[:RNDV_BYTES]
    assert tagged.clients[0].statuses() == [(1, 0)] and tagged.servers[0].row().state == QpState.RTS


def test_a_payload_longer_than_the_buffer_is_left_to_software(bench):
    tagged = ready(Tagged(bench), room=100)
    incomplete(tagged, ask(tagged, 101))


def test_a_qp_with_a_send_queue_of_its_own_leaves_rendezvous_to_software(bench):
    tagged = ready(Tagged(bench, flags=0))
    incomplete(tagged, ask(tagged, 50))


def test_a_qp_that_may_not_read_leaves_rendezvous_to_software(bench):
    tagged = ready(Tagged(bench, MAX_RD_ATOMIC=0))
    incomplete(tagged, ask(tagged, 50))


def test_a_buffer_too_short_for_the_headers_fails(bench):
    tagged = ready(Tagged(bench), room=RNDV_BYTES - 1)
    ask(tagged, 50)
    assert received(tagged.run()) == [(101, 0, WcStatus.LOC_LEN_ERR)]


@pytest.mark.parametrize(("extra", "matches"), [(32, True), (33, False), (2000, False)])
def test_a_request_longer_than_the_device_handles_is_unexpected(tagged, extra, matches):
    message = request(1, tagged.local, 500) + bytes(extra)
    tagged.send(message, at=4096)
    assert received(tagged.run()) == (COMPLETE if matches else [(10, 0, 0)])
    assert tagged.srq.unexpected == (0 if matches else 1)
    if not matches:
        assert tagged.at_server(6 * 4096, len(message)) == message


def test_a_device_without_the_offload_calls_every_request_unexpected():
    bench = Bench(NicProfile(tag_matching=TagMatchingProfile(max_rndv_hdr_size=0)))
    tagged = ready(Tagged(bench))
    ask(tagged, 10)
    assert received(tagged.run()) == [(10, 0, 0)] and tagged.srq.unexpected == 1


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_request_that_names_memory_its_sender_has_not_opened(tagged):
    ask(tagged, 100, rkey=tagged.local.key + 1)
    done = tagged.run()
    assert received(done) == [(101, MATCH, 0), (101, 0, WcStatus.REM_ACCESS_ERR)] and freed(done[1]) == 1
    assert tagged.servers[0].row().state == tagged.clients[0].row().state == QpState.ERR
    assert int(tagged.servers[0].row().rndv_open) == 0


def test_a_buffer_deregistered_meanwhile(tagged):
    ask(tagged, 20_000)
    seen = []
    tagged.bench.step_until(lambda: seen.extend(tagged.cq.poll()) or seen)
    tagged.bench.world.mkey[int(tagged.bench.device.row.mkey_base) + tagged.remote.index].access = 0
    done = tagged.run()
    assert received(done) == [(101, 0, WcStatus.LOC_PROT_ERR)] and tagged.srq.state(1) == TagState.FREE


def test_a_fin_that_nobody_takes_is_a_fatal_error_of_the_qp(bench):
    tagged = Tagged(bench, RNR_RETRY=1)
    tagged.srq.add(1, 1, tagged.remote.sge(100))
    tagged.run()
    ask(tagged, 100)
    assert received(tagged.run()) == COMPLETE, "the payload is there"
    assert (AsyncEvent.QP_FATAL, 4) in bench.asyncs() and tagged.servers[0].row().state == QpState.ERR


@pytest.mark.parametrize("state", [QpState.ERR, QpState.RESET])
def test_a_rendezvous_under_way_is_flushed(tagged, state):
    tagged.local.zap(1, 1)
    ask(tagged, 20_000)
    tagged.bench.fault()
    tagged.servers[0].modify(1, STATE=state)
    done = tagged.cq.poll()
    assert received(done) == [(101, MATCH, 0), (101, 0, WcStatus.WR_FLUSH_ERR)] and freed(done[1]) == 1
    assert tagged.srq.state(1) == TagState.FREE and int(tagged.servers[0].row().rndv_open) == 0
    tagged.bench.run()
    assert tagged.cq.poll() == []


def test_the_program_s_producer_counter_does_not_reach_the_device_s_own_queue(tagged):
    server = tagged.servers[0]
    server.post_send(9, 2, tagged.remote.sge(8))
    server.record.word(0, 1 << 40)
    tagged.bench.run()
    assert tagged.clients[0].cq.poll() == [] and server.row().state == QpState.RTS
    ask(tagged, 100)
    assert received(tagged.run()) == COMPLETE


# On-demand memory -----------------------------------------------------------------------------------------------------


def test_no_page_of_either_side_is_there(bench):
    tagged = Tagged(bench, cold=True)
    tagged.local.map(6, 2)
    tagged.srq.add(1, 1, tagged.remote.sge(20_000, 300))
    tagged.clients[0].post_recv(50, tagged.local.sge(64, 7 * 4096))
    tagged.bench.run()
    tagged.cq.poll()
    ask(tagged, 20_000, offset=1000)
    count = 0
    while tagged.waits:
        tagged.bench.step_until(lambda: tagged.resolve_faults() or not tagged.waits)
        count += 1
    assert received(tagged.cq.poll()) == COMPLETE
    assert tagged.at_server(300, 20_000) == tagged.local.data[1000:21_000]
    assert count > 10, "each page of both sides faulted"


def test_a_page_of_the_tag_s_buffer_that_cannot_be_brought_in(tagged):
    tagged.remote.zap(2, 1)
    ask(tagged, 20_000)
    tagged.bench.resume(tagged.bench.fault()["token"], error=1)
    done = tagged.run()
    assert received(done) == [(101, MATCH, 0), (101, 0, WcStatus.LOC_PROT_ERR)] and freed(done[1]) == 1


def test_a_page_of_the_sender_that_cannot_be_brought_in(tagged):
    tagged.local.zap(2, 1)
    ask(tagged, 20_000)
    tagged.bench.resume(tagged.bench.fault()["token"], error=1)
    done = tagged.run()
    assert received(done) == [(101, MATCH, 0), (101, 0, WcStatus.REM_ACCESS_ERR)]


def test_headers_of_a_request():
    assert len(header(1)) == TMH.size == 16 and RVH.size == 16
