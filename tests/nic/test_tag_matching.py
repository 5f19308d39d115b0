"""Tag matching at a TM-SRQ (rdma-core, document on hardware tag matching; ``ibv_post_srq_ops(3)``)."""

import pytest

from nicemu.abi.tag_matching import RNDV_BYTES, TMH_BYTES, TmhOp
from nicemu.abi.verbs import AsyncEvent, QpState, WcFlag, WcOpcode, WcStatus
from nicemu.config.nic_profile import NicCosts, NicProfile
from nicemu.nic.tag_list import TagState
from nicemu.wire import opcode as bth
from tests.nic.packets import inject
from tests.nic.tags import (
    COMMAND_QPN,
    DATA_VALID,
    FULL,
    MATCH,
    SYNC_REQ,
    Tagged,
    freed,
    header,
    received,
    request,
    tag_of,
)
from tests.nic.testbench import Bench

BOTH = MATCH | DATA_VALID


@pytest.fixture
def tagged(bench) -> Tagged:
    """A TM-SRQ under two servers, nothing posted."""
    return Tagged(bench)


@pytest.fixture
def posted(tagged) -> Tagged:
    """Tags 0..3 are posted under handles 0..3, a page each, and four untagged buffers."""
    for n in range(4):
        tagged.srq.add(n, n, tagged.remote.sge(4096, 4096 * n))
        tagged.srq.post(10 + n, tagged.remote.sge(4096, 4096 * (4 + n)))
    assert [(c["wr_id"], c["opcode"], c["flags"], c["status"]) for c in tagged.run()] == [
        (n, WcOpcode.TM_ADD, 0, 0) for n in range(4)
    ]
    return tagged


# Matching -------------------------------------------------------------------------------------------------------------


def test_a_matching_message_lands_in_the_tag_s_buffer_without_its_header(posted):
    sent = posted.send(header(2, app_ctx=0xA1B2C3D4), 500)
    (done,) = posted.run()
    assert (done["wr_id"], done["opcode"], done["flags"], done["status"]) == (102, WcOpcode.TM_RECV, BOTH, 0)
    assert tag_of(done) == (2, 0xA1B2C3D4) and done["byte_len"] == 500 and done["qp_num"] == 4
    assert posted.at_server(8192, 500) == sent[TMH_BYTES:] and freed(done) == 2
    assert posted.clients[0].statuses() == [(1, 0)]


@pytest.mark.parametrize(
    ("tag", "mask", "wanted", "matches"),
    [
        (5, FULL, 5, True),
        (5, FULL, 6, False),
        (0, 0, FULL, True),
        (0x1200, 0xFF00, 0x12FF, True),
        (0x1200, 0xFF00, 0x13FF, False),
        (0x1234, 0xFF00, 0x1234, False),  # TMH.tag & mask == tag, and the tag has bits outside its mask
        (1 << 63, 1 << 63, FULL, True),
        (1 << 63, FULL, 1 << 63, True),
        (1 << 63, 1 << 63, FULL >> 1, False),
    ],
)
def test_a_tag_matches_under_its_mask(tagged, tag, mask, wanted, matches):
    tagged.srq.add(0, tag, tagged.remote.sge(100), mask=mask)
    tagged.srq.post(10, tagged.remote.sge(4096, 4096))
    tagged.run()
    tagged.send(header(wanted), 10)
    assert received(tagged.run()) == [(100, BOTH, 0) if matches else (10, 0, 0)]


def test_of_the_tags_that_match_the_first_posted_takes_the_message(tagged):
    for handle, mask in ((3, 0xF0), (1, FULL), (2, 0)):
        tagged.srq.add(handle, 0x10 & mask, tagged.remote.sge(64, 64 * handle), mask=mask)
    tagged.run()
    for who in (0, 1, 0):
        tagged.send(header(0x10), 8, who=who)
        tagged.bench.run()
    assert [c["wr_id"] for c in tagged.run()] == [103, 101, 102]


def test_a_message_of_several_packets_tells_its_match_at_once_and_its_data_later(posted):
    posted.srq.add(4, 4, posted.remote.sge(20_000))
    sent = posted.send(header(4, app_ctx=7), 20_000)
    seen = []
    posted.bench.step_until(lambda: seen.extend(received(posted.cq.poll())) or seen)
    assert seen == [(104, MATCH, 0)]
    (done,) = posted.run()
    assert received([done]) == [(104, DATA_VALID, 0)]
    assert (done["byte_len"], tag_of(done), freed(done)) == (20_000, (0, 0), 4)
    assert posted.at_server(0, 20_000) == sent[TMH_BYTES:]


def test_the_match_brings_the_header_and_keeps_the_handle(posted):
    posted.send(header(1, app_ctx=7), 2500)
    match, data = posted.run()
    assert (tag_of(match), freed(match), match["byte_len"]) == ((1, 7), None, 0)
    assert (tag_of(data), freed(data), data["byte_len"]) == ((0, 0), 1, 2500)


def test_a_message_may_be_a_header_and_nothing_else(tagged):
    tagged.srq.add(0, 9)
    tagged.run()
    tagged.send(header(9))
    (done,) = tagged.run()
    assert (received([done]), done["byte_len"]) == ([(100, BOTH, 0)], 0)


def test_a_buffer_of_several_pieces(tagged):
    tagged.srq.add(0, 9, *(tagged.remote.sge(size, at) for size, at in ((7, 0), (4000, 5000), (1, 9500), (300, 20000))))
    tagged.run()
    sent = tagged.send(header(9), 4200)[TMH_BYTES:]
    assert received(tagged.run()) == [(100, MATCH, 0), (100, DATA_VALID, 0)]
    data = tagged.remote.data
    assert data[:7] + data[5000:9000] + data[9500:9501] + data[20000:20192] == sent


def test_immediate_data_comes_with_the_data(posted):
    posted.send(header(1), 2000, imm=0x1234)
    first, last = posted.run()
    assert (first["flags"], last["flags"], last["imm"]) == (MATCH, DATA_VALID | WcFlag.WITH_IMM, 0x1234)


# Messages for software ------------------------------------------------------------------------------------------------


def test_a_message_that_matches_nothing_lies_whole_in_an_untagged_buffer(posted):
    sent = posted.send(header(99, app_ctx=5), 1500)
    (done,) = posted.run()
    assert received([done]) == [(10, 0, 0)] and done["opcode"] == WcOpcode.TM_RECV
    assert (done["byte_len"], tag_of(done)) == (1516, (0, 0)) and posted.srq.unexpected == 1
    assert posted.at_server(4 * 4096, 1516) == sent


@pytest.mark.parametrize(
    "message",
    [
        b"\0 and whatever it likes",
        header(1, TmhOp.FIN),
        header(1)[:15],
        header(1, TmhOp.RNDV) + bytes(15),
        b"\xff" * 40,
    ],
)
def test_a_message_without_a_tag_matches_nothing_and_is_not_counted(posted, message):
    posted.send(message)
    (done,) = posted.run()
    assert received([done]) == [(10, 0, 0)] and done["opcode"] == WcOpcode.TM_NO_TAG
    assert posted.at_server(4 * 4096, len(message)) == message and posted.srq.unexpected == 0


def test_an_empty_message_has_no_tag(posted):
    posted.clients[0].post_send(1, 2)
    (done,) = posted.run()
    assert (done["opcode"], done["byte_len"], done["wr_id"]) == (WcOpcode.TM_NO_TAG, 0, 10)


def test_without_an_untagged_buffer_the_sender_waits_and_then_may_match(tagged):
    tagged.send(header(5), 10)
    tagged.bench.run_for(50_000)
    assert tagged.cq.poll() == [] and tagged.srq.unexpected == 0 and tagged.bench.device.row.rnr_naks_sent > 0
    tagged.srq.add(0, 5, tagged.remote.sge(64))
    assert received(tagged.run()) == [(100, BOTH, 0)]


# In step --------------------------------------------------------------------------------------------------------------


def test_after_an_unexpected_message_new_tags_match_nothing_until_software_is_in_step(posted):
    posted.send(header(50), 8)
    posted.run()
    posted.srq.add(8, 50, posted.remote.sge(64))
    posted.srq.add(9, 51, posted.remote.sge(64), handled=0)
    assert [(c["wr_id"], c["flags"]) for c in posted.run()] == [(8, SYNC_REQ), (9, SYNC_REQ)]
    posted.send(header(50), 8)
    posted.send(header(3), 8, at=5000)
    assert received(posted.run()) == [(11, 0, 0), (103, BOTH, 0)], "the new one is passed over, an old one is not"
    posted.srq.sync(1)
    assert [(c["opcode"], c["wr_id"], c["flags"]) for c in posted.run()] == [(WcOpcode.TM_SYNC, 300, SYNC_REQ)]
    posted.srq.sync(2, 301)
    assert [(c["wr_id"], c["flags"]) for c in posted.run()] == [(301, 0)]
    posted.send(header(50), 8)
    assert received(posted.run()) == [(108, BOTH, 0)]


def test_an_operation_that_brings_the_count_is_in_step_itself(posted):
    posted.send(header(50), 8)
    posted.run()
    posted.srq.add(8, 50, posted.remote.sge(64), handled=1)
    posted.send(header(50), 8)
    assert [(c["wr_id"], c["flags"]) for c in posted.run()] == [(8, 0), (108, BOTH)]


def test_a_count_without_the_sync_flag_says_nothing(posted):
    posted.send(header(50), 8)
    posted.run()
    posted.srq.operate(2, 7)
    assert [(c["wr_id"], c["flags"]) for c in posted.run()] == [(7, SYNC_REQ)]


def test_counts_are_compared_in_16_bits(tagged):
    row = tagged.bench.world.tag_list[int(tagged.bench.device.row.srq_base) + 1]
    row.unexpected = row.handled = 0xFFFF
    tagged.srq.post(10, tagged.remote.sge(4096))
    tagged.send(header(1), 8)
    tagged.run()
    assert tagged.srq.unexpected == 0
    tagged.srq.sync(0x10000)
    assert [c["flags"] for c in tagged.run()] == [0]


def test_many_unhandled_messages_ask_for_a_sync_themselves(tagged):
    row = tagged.bench.world.tag_list[int(tagged.bench.device.row.srq_base) + 1]
    row.unexpected = 0x3FFE
    for n in range(2):
        tagged.srq.post(n, tagged.remote.sge(4096))
        tagged.send(header(1), 8)
        tagged.bench.run()
    assert [c["flags"] for c in tagged.run()] == [0, SYNC_REQ]


# Operations -----------------------------------------------------------------------------------------------------------


def test_a_deleted_tag_matches_nothing(posted):
    posted.srq.delete(1)
    (done,) = posted.run()
    assert (done["opcode"], done["wr_id"], done["status"], done["qp_num"]) == (WcOpcode.TM_DEL, 200, 0, COMMAND_QPN)
    for tag in (0, 1, 2, 3):
        posted.send(header(tag), 8, at=4096 + 100 * tag)
    assert received(posted.run()) == [(100, BOTH, 0), (10, 0, 0), (102, BOTH, 0), (103, BOTH, 0)]


@pytest.mark.parametrize("gone", [(0, 3), (3, 0), (1, 2), (0, 1, 2, 3), (3, 2, 1, 0)])
def test_deleting_at_any_place_keeps_the_order_of_the_rest(tagged, gone):
    for n in range(4):
        tagged.srq.add(n, 0, tagged.remote.sge(64, 64 * n), mask=0)
    for handle in gone:
        tagged.srq.delete(handle)
    tagged.srq.add(7, 0, tagged.remote.sge(64), mask=0)
    tagged.run()
    rest = [n for n in (0, 1, 2, 3, 7) if n not in gone]
    for _ in rest:
        tagged.send(header(1), 8)
        tagged.bench.run()
    assert [c["wr_id"] for c in tagged.run()] == [100 + n for n in rest]


@pytest.mark.parametrize("handle", [1, 9, 16, 0xFFFFFFFF])
def test_deleting_a_tag_that_is_consumed_or_not_there_is_a_tm_error(posted, handle):
    posted.send(header(1), 8)
    posted.run()
    posted.srq.delete(handle)
    assert [c["status"] for c in posted.run()] == [WcStatus.TM_ERR]


def test_adding_under_a_handle_in_use_or_out_of_range_is_a_tm_error(posted):
    posted.srq.add(1, 1)
    posted.srq.add(16, 1)
    assert [c["status"] for c in posted.run()] == [WcStatus.TM_ERR] * 2


def test_an_operation_without_a_signal_has_no_completion(tagged):
    tagged.srq.add(0, 1, tagged.remote.sge(64), signaled=False)
    tagged.srq.delete(0, signaled=False)
    tagged.srq.sync(0, signaled=False)
    assert tagged.run() == [] and tagged.srq.ops_record.word(8) == 3 and tagged.srq.state(0) == TagState.FREE


def test_an_unknown_operation_is_refused_and_the_next_goes_on(tagged):
    tagged.srq.operate(7, 5)
    tagged.srq.add(0, 1)
    assert [(c["wr_id"], c["status"]) for c in tagged.run()] == [(5, WcStatus.LOC_QP_OP_ERR), (0, 0)]


def test_operations_take_effect_one_after_the_other_in_time(tagged):
    for n in range(3):
        tagged.srq.add(n, n)
    times = [c["time"] for c in tagged.run()]
    cost = tagged.bench.device.profile.costs
    assert times == [times[0] + n * cost.wqe_fetch_ns for n in range(3)]


def test_a_producer_counter_that_cannot_be_is_an_srq_error_once(tagged):
    tagged.srq.ops_record.word(0, 1 << 40)
    tagged.srq.sync(0)
    tagged.srq.sync(0)
    assert tagged.run() == [] and tagged.bench.asyncs() == [(AsyncEvent.SRQ_ERR, 1)]


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "room", "before"), [(101, 100, []), (3000, 2999, [(100, MATCH, 0)])])
def test_a_message_longer_than_the_tag_s_buffer(tagged, length, room, before):
    tagged.srq.add(0, 1, tagged.remote.sge(room))
    tagged.run()
    tagged.send(header(1), length)
    done = tagged.run()
    assert received(done) == [*before, (100, 0, WcStatus.LOC_LEN_ERR)] and freed(done[-1]) == 0
    assert tagged.clients[0].statuses() == [(1, WcStatus.REM_INV_REQ_ERR)]
    assert tagged.servers[0].row().state == QpState.ERR and tagged.srq.state(0) == TagState.FREE


def test_a_message_that_just_fits(tagged):
    tagged.srq.add(0, 1, tagged.remote.sge(100))
    tagged.run()
    tagged.send(header(1), 100)
    assert received(tagged.run()) == [(100, BOTH, 0)]


@pytest.mark.parametrize("rendezvous", [False, True])
def test_a_bad_key_of_a_tag_s_buffer_fails_when_it_matches(tagged, rendezvous):
    tagged.srq.add(0, 1, (tagged.remote.va, 100, tagged.remote.key + 1))
    assert [c["status"] for c in tagged.run()] == [0]
    tagged.send(header(1, TmhOp.RNDV) + bytes(16) if rendezvous else header(1), 8)
    done = tagged.run()
    assert received(done) == [(100, 0, WcStatus.LOC_PROT_ERR)] and freed(done[0]) == 0
    assert tagged.clients[0].statuses() == [(1, WcStatus.REM_OP_ERR)]


@pytest.fixture
def held(tagged) -> Tagged:
    """A tag (1) and an untagged buffer (10) of two pages each, whose second pages are missing: a message of 6,000 bytes
    stays in progress."""
    tagged.srq.add(1, 1, tagged.remote.sge(8192))
    tagged.srq.post(10, tagged.remote.sge(8192, 8192))
    tagged.remote.zap(1, 1)
    tagged.remote.zap(3, 1)
    tagged.run()
    return tagged


def hold(tagged, tag, who=0):
    """Send such a message and run until it faults."""
    tagged.send(header(tag), 6000, who=who, at=8192 * who)
    tagged.bench.fault()


def test_a_qp_error_flushes_what_the_message_in_progress_had_taken(held):
    hold(held, 1)
    hold(held, 60, who=1)
    for server in held.servers:
        server.modify(1, STATE=QpState.ERR)
    done = held.cq.poll()
    assert received(done) == [(101, MATCH, 0), (101, 0, WcStatus.WR_FLUSH_ERR), (10, 0, WcStatus.WR_FLUSH_ERR)]
    assert freed(done[1]) == 1 and done[2]["opcode"] == WcOpcode.TM_RECV
    assert held.srq.unexpected == 0 and held.srq.state(1) == TagState.FREE


def test_an_unexpected_message_that_comes_to_nothing_lets_new_tags_match_again(held):
    hold(held, 60)
    held.srq.add(8, 61, held.remote.sge(64))
    held.bench.run_for(600)
    assert [c["flags"] for c in held.cq.poll()] == [SYNC_REQ]
    held.servers[0].modify(1, STATE=QpState.ERR)
    held.send(header(61), 8, who=1)
    assert (108, BOTH, 0) in received(held.run())


@pytest.mark.parametrize("tag", [1, 60])
def test_a_reset_completes_what_was_taken_from_the_srq(held, tag):
    hold(held, tag)
    held.cq.poll()
    held.servers[0].modify(1, STATE=QpState.RESET)
    assert held.srq.unexpected == 0 and held.srq.state(1) == (TagState.FREE if tag == 1 else TagState.POSTED)
    assert received(held.cq.poll()) == [(101 if tag == 1 else 10, 0, WcStatus.WR_FLUSH_ERR)]


@pytest.mark.parametrize("tag", [1, 60])
def test_a_reset_completes_what_was_accepted_and_has_not_moved_yet(tag):
    slow = Tagged(Bench(NicProfile(costs=NicCosts(pcie_latency_ns=100_000))))
    slow.srq.add(1, 1, slow.remote.sge(4096))
    slow.srq.post(10, slow.remote.sge(4096, 4096))
    slow.run()
    slow.send(header(tag), 8)
    slow.bench.step_until(lambda: int(slow.servers[0].row().commit_until) > slow.bench.world.now)
    slow.servers[0].modify(1, STATE=QpState.RESET)
    assert slow.cq.poll() == []
    assert received(slow.run()) == [(101 if tag == 1 else 10, 0, WcStatus.WR_FLUSH_ERR)] and slow.srq.unexpected == 0


@pytest.mark.parametrize("eager", [True, False])
def test_what_an_old_life_had_accepted_leaves_nothing_in_the_new_one(eager):
    slow = Tagged(Bench(NicProfile(costs=NicCosts(pcie_latency_ns=100_000))))
    slow.srq.add(1, 1, slow.remote.sge(4096))
    slow.run()
    slow.send(header(1) if eager else request(1, slow.local, 100), 8 if eager else 0)
    server = slow.servers[0]
    slow.bench.step_until(lambda: int(server.row().commit_until) > slow.bench.world.now)
    server.modify(1, STATE=QpState.RESET)
    assert received(slow.run()) == [(101, 0, WcStatus.WR_FLUSH_ERR)]
    row = server.row()
    assert (row.commit_failed, row.failed_wqe, row.recv_taken, row.rndv_open) == (0, -1, 0, 0)


def test_a_full_cq_takes_the_qp_down(bench):
    tagged = Tagged(bench)
    tagged.srq.add(0, 1, tagged.remote.sge(64))
    tagged.run()
    tagged.cq.record.word(0, -1024)
    tagged.send(header(1), 8)
    bench.run()
    assert (AsyncEvent.QP_FATAL, 4) in bench.asyncs() and tagged.srq.state(0) == TagState.FREE


def test_a_write_with_immediate_takes_an_untagged_buffer(posted):
    client = posted.clients[0]
    client.post_send(1, 1, posted.local.sge(100), remote=posted.remote.va, rkey=posted.remote.key, imm=3)
    (done,) = posted.run()
    assert (done["opcode"], done["wr_id"], done["imm"]) == (WcOpcode.RECV_RDMA_WITH_IMM, 10, 3)


# On-demand memory -----------------------------------------------------------------------------------------------------


def resolve(tagged, region) -> int:
    """Map the page of the next fault and let the QP go on; the page."""
    fault = tagged.bench.fault()
    assert fault["key"] == region.key
    page = (fault["va"] - region.va) // 4096
    region.map(page, 1)
    tagged.bench.resume(fault["token"])
    return page


def test_a_tag_s_buffer_faults_as_any_receive_and_keeps_its_message(posted):
    posted.remote.zap(0, 8)
    posted.srq.add(4, 4, posted.remote.sge(8192, 100))
    sent = posted.send(header(4), 6000)
    posted.send(header(1), 8, who=1, at=2000)
    done = []
    for _ in range(4):  # the other server's message faults on page 1 as well
        posted.bench.step_until(lambda: posted.resolve_faults() or not posted.waits)
        done += received(posted.cq.poll())
    done += received(posted.run())
    assert [d for d in done if d[0] == 104] == [(104, MATCH, 0), (104, DATA_VALID, 0)]
    assert (101, BOTH, 0) in done and posted.at_server(100, 6000) == sent[TMH_BYTES:]


def test_a_fault_in_the_middle_of_a_message(posted):
    posted.srq.add(4, 4, posted.remote.sge(8192))
    posted.remote.zap(1, 1)
    sent = posted.send(header(4), 7000)
    assert resolve(posted, posted.remote) == 1
    assert received(posted.run()) == [(104, MATCH, 0), (104, DATA_VALID, 0)]
    assert posted.at_server(0, 7000) == sent[TMH_BYTES:]


def test_a_peer_that_sends_less_when_it_sends_again(posted):
    posted.remote.zap(0, 8)
    posted.send(header(1), 8)
    posted.bench.step_until(lambda: int(posted.bench.device.row.page_faults) > 0)
    inject(posted.bench, posted.clients[0], posted.servers[0], opcode=bth.SEND + bth.ONLY, transport=bth.RC, last=1)
    (done,) = posted.run()
    assert (done["wr_id"], done["status"], done["byte_len"]) == (101, 0, 0)


def test_a_page_that_cannot_be_brought_in_fails_the_tag(posted):
    posted.remote.zap(1, 1)
    posted.send(header(1), 8)
    posted.bench.resume(posted.bench.fault()["token"], error=1)
    done = posted.run()
    assert received(done) == [(101, 0, WcStatus.LOC_PROT_ERR)] and freed(done[0]) == 1
    assert posted.clients[0].statuses() == [(1, WcStatus.REM_OP_ERR)]


def test_both_headers_are_32_bytes():
    assert (TMH_BYTES, RNDV_BYTES) == (16, 32)
