"""Programs over UC, UD and XRC, with shared receive queues and multicast, through library, driver and NIC."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nicemu.abi.verbs import AsyncEvent, QpState, QpType
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, GID, AHAttr, GlobalRoute
from nicemu.pyverbs.qp import QPAttr
from nicemu.pyverbs.srq import SrqAttr
from nicemu.uverbs import session
from nicemu.uverbs import srq_messages as s
from tests.lab.transports import GRH, QKEY, End, connect, connect_xrc, datagrams, poll

SUCCESS = e.IBV_WC_SUCCESS
GROUP = "ff0e:0000:0000:0000:0000:0000:0000:0007"


pytestmark = pytest.mark.usefixtures("default_lab", "closed_afterwards")


def check(wc: Any, **wanted: Any) -> None:
    assert {name: getattr(wc, name) for name in wanted} == wanted


def to(end: End, ah: AH, right: End, length: int, wr_id: int = 1, **options: Any) -> None:
    """Post a datagram."""
    wr = end.send(length, wr_id, **options)
    wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
    end.qp.post_send(wr)


# UD -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gid_index", [1, 3], ids=["IPv6", "IPv4"])
def test_a_datagram_arrives_behind_40_bytes(gid_index: int) -> None:
    left, right, ah = datagrams(gid_index)
    right.receive(2000, 7)
    left.mr.write(b"datagram" * 100, 800)
    to(left, ah, right, 800, 3, opcode=e.IBV_WR_SEND_WITH_IMM, imm_data=socket.htonl(99))
    check(left.poll()[0], wr_id=3, status=SUCCESS, opcode=e.IBV_WC_SEND)
    (wc,) = right.poll()
    check(wc, wr_id=7, status=SUCCESS, byte_len=840, src_qp=left.qp.qp_num, qp_num=right.qp.qp_num)
    assert wc.wc_flags & e.IBV_WC_GRH and wc.wc_flags & e.IBV_WC_WITH_IMM and wc.imm_data == socket.htonl(99)
    assert right.mr.read(800, GRH) == b"datagram" * 100


@pytest.mark.parametrize("gid_index", [1, 3], ids=["IPv6", "IPv4"])
def test_ping_pong_answers_through_the_completion(gid_index: int) -> None:
    left, right, ah = datagrams(gid_index)
    for turn in range(10):
        right.receive(200)
        left.receive(200)
        left.mr.write(b"ping%04d" % turn, 8, 1000)
        wr = left.send(8)
        wr.sg_list = left.sge(8, 1000)
        wr.set_wr_ud(ah, right.qp.qp_num, QKEY)
        left.qp.post_send(wr)
        (wc,) = right.poll()
        assert right.mr.read(8, GRH) == b"ping%04d" % turn
        back = AH(right.pd, wc=wc, grh=right.mr.buf, port_num=1)
        right.mr.write(b"pong%04d" % turn, 8, 1000)
        wr = right.send(8)
        wr.sg_list = right.sge(8, 1000)
        wr.set_wr_ud(back, wc.src_qp, QKEY)
        right.qp.post_send(wr)
        assert {wc.opcode for wc in left.poll(2)} == {e.IBV_WC_SEND, e.IBV_WC_RECV}
        assert left.mr.read(8, GRH) == b"pong%04d" % turn
        right.poll()


def test_a_datagram_without_a_receive_or_with_another_qkey_is_lost() -> None:
    left, right, ah = datagrams()
    to(left, ah, right, 8)
    check(left.poll()[0], status=SUCCESS)
    session.endpoint().settle(lambda: False, 1_000_000)
    right.receive(100, 5)
    wr = left.send(8)
    wr.set_wr_ud(ah, right.qp.qp_num, QKEY + 1)
    left.qp.post_send(wr)
    check(left.poll()[0], status=SUCCESS)
    assert right.cq.poll()[0] == 0


@contextmanager
def member(end: End, group: GID) -> Iterator[None]:
    """pyverbs has no verb for it; rdma_cm joins groups with this command. A member cannot be destroyed."""
    execute = session.endpoint().execute
    execute(s.AttachMcast(end.qp._handle, group._raw))
    try:
        yield
    finally:
        execute(s.DetachMcast(end.qp._handle, group._raw))


def test_a_group_gets_a_copy_each_while_they_are_members() -> None:
    left, right, _ = datagrams()
    third = End()
    third.make(QpType.UD)
    third.qp.to_rts(third.attr(third.qp))
    group = GID(GROUP)
    ah = AH(left.pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=group, sgid_index=1)))

    def send(text: bytes) -> None:
        left.mr.write(text, len(text))
        wr = left.send(len(text))
        wr.set_wr_ud(ah, 0xFFFFFF, QKEY)
        left.qp.post_send(wr)
        left.poll()

    for end in (right, third):
        end.receive(100, 1)
    with member(right, group):
        with member(third, group):
            send(b"to both")
            for end in (right, third):
                check(end.poll()[0], status=SUCCESS, wr_id=1, byte_len=47, src_qp=left.qp.qp_num)
                assert end.mr.read(7, GRH) == b"to both"
                end.receive(100, 2)
        send(b"to one")
        check(right.poll()[0], status=SUCCESS, wr_id=2, byte_len=46)
        assert third.cq.poll()[0] == 0


# UC -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 1024, 1025, 5000])
def test_uc_sends_and_writes(length: int) -> None:
    left, right = connect(QpType.UC)
    data = bytes(n % 251 for n in range(length))
    left.mr.write(data, length) if length else None
    right.receive(8192, 7)
    left.qp.post_send(left.send(length, 1))
    check(left.poll()[0], status=SUCCESS, wr_id=1)
    check(right.poll()[0], status=SUCCESS, wr_id=7, byte_len=length, qp_num=right.qp.qp_num)
    assert not length or right.mr.read(length, 0) == data
    wr = left.send(length, 2, opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(right.mr.rkey, right.mr.buf + 20000)
    left.qp.post_send(wr)
    check(left.poll()[0], status=SUCCESS, wr_id=2, opcode=e.IBV_WC_RDMA_WRITE)
    session.endpoint().settle(lambda: False, 1_000_000)
    assert not length or right.mr.read(length, 20000) == data


def test_a_uc_send_that_nobody_receives_is_lost_and_the_next_arrives() -> None:
    left, right = connect(QpType.UC)
    left.qp.post_send(left.send(3000, 1))
    check(left.poll()[0], status=SUCCESS)
    session.endpoint().settle(lambda: False, 1_000_000)
    right.receive(8192, 7)
    left.qp.post_send(left.send(100, 2))
    check(right.poll()[0], status=SUCCESS, wr_id=7, byte_len=100)


# Shared receive queues ------------------------------------------------------------------------------------------------


def shared_pairs() -> tuple[list[End], End]:
    """Two RC clients, and a server whose two QPs share an SRQ."""
    server, clients = End(), [End(), End()]
    srq = server.make_srq()
    pairs = []
    for client in clients:
        client.make(QpType.RC)
        pairs.append(server.make(QpType.RC, srq))
        client.qp.to_rts(client.attr(pairs[-1]))
        pairs[-1].to_rts(server.attr(client.qp))
    server.qp = pairs
    return clients, server


def test_two_qps_take_from_one_srq_in_its_order() -> None:
    clients, server = shared_pairs()
    for wr_id in range(20):
        server.receive(64, wr_id, 64 * wr_id)
    for turn in range(20):
        client = clients[turn % 2]
        client.mr.write(b"message%02d" % turn, 9)
        client.qp.post_send(client.send(9))
        check(client.poll()[0], status=SUCCESS)
        check(server.poll()[0], status=SUCCESS, wr_id=turn, byte_len=9, qp_num=server.qp[turn % 2].qp_num)
        assert server.mr.read(9, 64 * turn) == b"message%02d" % turn


def test_slots_of_an_srq_come_back() -> None:
    clients, server = shared_pairs()
    for turn in range(100):
        server.receive(64, turn)
        clients[0].qp.post_send(clients[0].send(8))
        clients[0].poll()
        check(server.poll()[0], status=SUCCESS, wr_id=turn)


def test_an_empty_srq_makes_the_sender_wait() -> None:
    clients, server = shared_pairs()
    clients[0].qp.post_send(clients[0].send(8))
    assert server.cq.poll()[0] == 0
    server.receive(64, 9)
    check(server.poll()[0], status=SUCCESS, wr_id=9)
    check(clients[0].poll()[0], status=SUCCESS)


def test_the_limit_event_comes_once() -> None:
    clients, server = shared_pairs()
    for wr_id in range(10):
        server.receive(64, wr_id)
    server.srq.modify(SrqAttr(srq_limit=7), e.IBV_SRQ_LIMIT)
    assert server.srq.query().srq_limit == 7
    for _ in range(6):
        clients[0].qp.post_send(clients[0].send(8))
        clients[0].poll(), server.poll()
    event = server.ctx.get_async_event()
    event.ack()
    assert event.event_type == AsyncEvent.SRQ_LIMIT_REACHED and server.srq.query().srq_limit == 0


def test_what_is_posted_survives_a_resize() -> None:
    clients, server = shared_pairs()
    for wr_id in range(30):
        server.receive(64, wr_id)
    for _ in range(5):
        clients[0].qp.post_send(clients[0].send(8))
        clients[0].poll(), server.poll()
    server.srq.modify(SrqAttr(max_wr=100, max_sge=2), e.IBV_SRQ_MAX_WR)
    attr = server.srq.query()
    assert (attr.max_wr, attr.max_sge) == (100, 2)
    for wr_id in range(30, 60):
        server.receive(64, wr_id)
    for turn in range(5, 60):
        clients[1].qp.post_send(clients[1].send(8))
        clients[1].poll()
        check(server.poll()[0], status=SUCCESS, wr_id=turn)


def test_the_last_wqe_event_comes_when_a_qp_goes_to_error() -> None:
    clients, server = shared_pairs()
    server.receive(64, 1)
    server.qp[0].modify(QPAttr(qp_state=QpState.ERR), e.IBV_QP_STATE)
    event = server.ctx.get_async_event()
    event.ack()
    assert event.event_type == AsyncEvent.QP_LAST_WQE_REACHED
    assert server.cq.poll()[0] == 0, "requests of an SRQ are not flushed"
    clients[1].qp.post_send(clients[1].send(8))
    check(server.poll()[0], status=SUCCESS, wr_id=1, qp_num=server.qp[1].qp_num)


@pytest.mark.parametrize("kind", [QpType.UC, QpType.UD])
def test_an_srq_serves_unreliable_qps(kind: QpType) -> None:
    left, right = End(), End()
    left.make(kind), right.make(kind, right.make_srq())
    left.qp.to_rts(left.attr(right.qp)), right.qp.to_rts(right.attr(left.qp))
    right.receive(200, 4)
    wr = left.send(8)
    if kind == QpType.UD:
        route = GlobalRoute(dgid=right.gid(), sgid_index=1)
        wr.set_wr_ud(AH(left.pd, attr=AHAttr(is_global=1, gr=route)), right.qp.qp_num, QKEY)
    left.qp.post_send(wr)
    check(right.poll()[0], status=SUCCESS, wr_id=4, byte_len=8 + GRH * (kind == QpType.UD))


def test_an_srq_in_on_demand_memory() -> None:
    clients, _ = shared_pairs()
    server = End(e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_ON_DEMAND)
    pair = server.make(QpType.RC, server.make_srq())
    client = End()
    client.make(QpType.RC)
    client.qp.to_rts(client.attr(pair)), pair.to_rts(server.attr(client.qp))
    client.mr.write(b"x" * 9000, 9000)
    server.receive(10000, 1, 100)
    client.qp.post_send(client.send(9000))
    check(server.poll()[0], status=SUCCESS, byte_len=9000)
    assert server.mr.read(9000, 100) == b"x" * 9000 and clients


# XRC ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 1024, 5000])
def test_an_xrc_message_lands_in_the_srq_it_names(length: int) -> None:
    left, right = connect_xrc()
    right.receive(8192, 7)
    data = bytes(n % 251 for n in range(length))
    left.mr.write(data, length) if length else None
    wr = left.send(length, 3)
    wr.set_qp_type_xrc(right.srq.get_srq_num())
    left.qp.post_send(wr)
    check(poll(left.cq)[0], status=SUCCESS, wr_id=3)
    check(poll(right.cq)[0], status=SUCCESS, wr_id=7, byte_len=length, qp_num=right.targets[0].qp_num)
    assert not length or right.mr.read(length, 0) == data


def test_xrc_both_ways_over_two_pairs_of_qps() -> None:
    ends = connect_xrc(2)
    for end in ends:
        for wr_id in range(40):
            end.receive(64, wr_id)
    for turn in range(40):
        for one, other in (ends, ends[::-1]):
            wr = one.send(16, turn)
            wr.set_qp_type_xrc(other.srq.get_srq_num())
            one.initiators[turn % 2].post_send(wr)
            check(poll(one.cq)[0], status=SUCCESS, wr_id=turn, opcode=e.IBV_WC_SEND)
            check(poll(other.cq)[0], status=SUCCESS, wr_id=turn, opcode=e.IBV_WC_RECV)


def test_xrc_writes_reads_and_atomics_under_the_srqs_pd() -> None:
    left, right = connect_xrc()

    def done(wr: Any) -> Any:
        wr.set_qp_type_xrc(right.srq.get_srq_num())
        left.qp.post_send(wr)
        return left.poll()[0]

    left.mr.write(b"written!", 8)
    wr = left.send(8, 1, opcode=e.IBV_WR_RDMA_WRITE)
    wr.set_wr_rdma(right.mr.rkey, right.mr.buf + 512)
    check(done(wr), status=SUCCESS)
    assert right.mr.read(8, 512) == b"written!"
    wr = left.send(8, 2, opcode=e.IBV_WR_ATOMIC_FETCH_AND_ADD)
    wr.set_wr_atomic(right.mr.rkey, right.mr.buf + 1024, 5)
    check(done(wr), status=SUCCESS, opcode=e.IBV_WC_FETCH_ADD)
    assert right.mr.read(8, 1024) == (5).to_bytes(8, "little") and left.mr.read(8, 0) == bytes(8)
    wr = left.send(8, 3, opcode=e.IBV_WR_RDMA_READ)
    wr.set_wr_rdma(right.mr.rkey, right.mr.buf + 512)
    check(done(wr), status=SUCCESS)
    assert left.mr.read(8, 0) == b"written!"


def test_an_srq_of_another_domain_is_not_reached() -> None:
    pair, others = connect_xrc(), connect_xrc()
    left, stranger = pair[0], others[0]
    stranger.receive(64, 1)
    wr = left.send(8)
    wr.set_qp_type_xrc(stranger.srq.get_srq_num())
    left.qp.post_send(wr)
    check(left.poll()[0], status=e.IBV_WC_REM_INV_REQ_ERR)
    assert stranger.cq.poll()[0] == 0
