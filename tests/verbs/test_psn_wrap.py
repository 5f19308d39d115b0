"""Packet sequence numbers are 24 bits: every operation goes on across their wrap."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import PAGE
from .sides import RC, UC, UD, atomic, attributes, datagram, datagrams, pair, read, recv, send, write
from .waiting import successes

LAST = 0xFFFFFF
STARTS = pytest.mark.parametrize("psn", [LAST, LAST - 1, LAST - 4, 0xFFFFF0])
PACKETS = 6
SIZE = PACKETS * 1024 - 3


PAGES = 8


def regions(near, far):
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    return source, target


@STARTS
@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_send_across_the_psn_wrap_arrives_whole(near, far, kind, psn):
    a, b = pair(near, far, kind, sq_psn=psn)
    source, target = regions(near, far)
    for index in range(3):
        recv(b, target.sge(), wr_id=index)
        send(a, source.sge(index, SIZE), wr_id=index)
        assert successes(near.cq, 1)[0].wr_id == index
        assert successes(far.cq, 1)[0].byte_len == SIZE
        assert target.bytes(0, SIZE) == source.bytes(index, SIZE)


@STARTS
@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_write_across_the_psn_wrap_arrives_whole(near, far, kind, psn):
    a, b = pair(near, far, kind, sq_psn=psn)
    source, target = regions(near, far)
    write(a, source.sge(0, SIZE), target.remote(8))
    write(a, source.sge(SIZE, SIZE), target.remote(8 + SIZE))
    recv(b)
    write(a, source.sge(0, 0), target.remote(), imm=1)
    successes(near.cq, 3)
    successes(far.cq, 1)
    assert target.bytes(8, 2 * SIZE) == source.bytes(0, 2 * SIZE)


@STARTS
def test_a_write_with_immediate_across_the_psn_wrap_arrives_whole(near, far, psn):
    a, b = pair(near, far, sq_psn=psn)
    source, target = regions(near, far)
    for index in range(3):
        recv(b)
        write(a, source.sge(index * SIZE, SIZE), target.remote(index * SIZE), imm=index)
    successes(near.cq, 3)
    assert [each.imm_data for each in successes(far.cq, 3)] == [0, 1, 2]
    assert target.bytes(0, 3 * SIZE) == source.bytes(0, 3 * SIZE)


@STARTS
def test_a_read_across_the_psn_wrap_arrives_whole(near, far, psn):
    a, _b = pair(near, far, sq_psn=psn)
    source, target = regions(far, near)
    for index in range(3):
        read(a, target.sge(index * SIZE, SIZE), source.remote(index * SIZE), wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 3)] == [0, 1, 2]
    assert target.bytes(0, 3 * SIZE) == source.bytes(0, 3 * SIZE)


@STARTS
def test_atomics_across_the_psn_wrap_count_once_each(near, far, psn):
    a, _b = pair(near, far, sq_psn=psn)
    result, word = near.region(), far.region()
    for index in range(20):
        atomic(a, result.sge(8 * index, 8), word.remote(), add=3)
    successes(near.cq, 20)
    assert word.bytes(0, 8) == (60).to_bytes(8, "little")
    assert result.bytes(0, 160) == b"".join((3 * index).to_bytes(8, "little") for index in range(20))


@STARTS
def test_all_operations_mixed_across_the_psn_wrap(near, far, psn):
    a, b = pair(near, far, sq_psn=psn)
    source, target = regions(near, far)
    recv(b, target.sge(0, SIZE))
    recv(b)
    send(a, source.sge(0, 2000))
    read(a, source.sge(PAGE * 7, 2000), target.remote(PAGE * 6))
    write(a, source.sge(2000, 2000), target.remote(2000))
    atomic(a, source.sge(PAGE * 7 + 2048, 8), target.remote(PAGE * 7), add=1)
    write(a, source.sge(4000, 2000), target.remote(4000), imm=5)
    successes(near.cq, 5)
    successes(far.cq, 2)
    assert target.bytes(0, 6000) == source.bytes(0, 6000)
    assert target.bytes(PAGE * 7, 8) == (1).to_bytes(8, "little")
    assert source.bytes(PAGE * 7, 2000) == bytes(2000)


def test_the_two_directions_wrap_independently(near, far):
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, sq_psn=LAST, rq_psn=5))
    b.to_rts(attributes(b, a, sq_psn=5, rq_psn=LAST))
    source, target = regions(near, far)
    for asker, own, other, cq in ((a, source, target, near.cq), (b, target, source, far.cq)):
        write(asker, own.sge(0, SIZE), other.remote(PAGE * 2))
        read(asker, own.sge(PAGE * 4, SIZE), other.remote())
        successes(cq, 2)
    assert target.bytes(PAGE * 2, SIZE) == source.bytes(0, SIZE) == target.bytes(PAGE * 4, SIZE)


def test_the_queried_send_psn_wraps(near, far):
    """query_qp says the next PSN to send, modulo 2^24."""
    a, _b = pair(near, far, sq_psn=LAST - 1)
    source, target = regions(near, far)
    assert a.query(e.IBV_QP_SQ_PSN)[0].sq_psn == LAST - 1
    write(a, source.sge(0, 3 * 1024), target.remote())
    successes(near.cq, 1)
    assert a.query(e.IBV_QP_SQ_PSN)[0].sq_psn == 1


def test_a_hundred_messages_across_the_wrap_stay_in_order(near, far):
    a, b = pair(near, far, caps={"max_send_wr": 128, "max_recv_wr": 128}, sq_psn=LAST - 50)
    source, target = regions(near, far)
    for index in range(100):
        recv(b, target.sge(8 * index, 8), wr_id=index)
    for index in range(100):
        send(a, source.sge(8 * index, 8), wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 100)] == list(range(100))
    assert [each.wr_id for each in successes(far.cq, 100)] == list(range(100))
    assert target.bytes(0, 800) == source.bytes(0, 800)


def test_datagrams_arrive_across_the_psn_wrap(near, far):
    a, b = near.qp(UD), datagrams(far)
    a.to_rts(attributes(a, sq_psn=LAST))
    source, target = regions(near, far)
    ah = near.address_of(far)
    for index in range(4):
        recv(b, target.sge(PAGE * index, 140), wr_id=index)
        datagram(a, source.sge(index * 100, 100), ah, b.qp_num)
    successes(near.cq, 4)
    assert [each.wr_id for each in successes(far.cq, 4)] == [0, 1, 2, 3]
    for index in range(4):
        assert target.bytes(PAGE * index + 40, 100) == source.bytes(index * 100, 100)
