"""Messages of every size around the MTU arrive whole, and touch nothing else."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import PAGE, make_pattern
from .sides import PORT, RC, UC, Remote, attributes, move_to, pair, read, recv, send, write
from .waiting import completions, status, successes

MTU = 1024
SIZES = (0, 1, MTU - 1, MTU, MTU + 1, 3 * MTU + 7, 64 * 1024)
PAGES = 17
RC_UC = pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])


def regions(near, far):
    """A source filled with pattern 1 and a target filled with pattern 2."""
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    target.fill(2)
    return source, target


def changed(target, offset, data):
    """What the target must hold: its pattern with `data` at `offset`."""
    before = make_pattern(2, target.length)
    return before[:offset] + data + before[offset + len(data) :]


@pytest.mark.parametrize("size", SIZES)
@RC_UC
def test_a_send_arrives_whole(near, far, kind, size):
    a, b = pair(near, far, kind)
    source, target = regions(near, far)
    recv(b, target.sge(), wr_id=7)
    send(a, source.sge(0, size), wr_id=3)
    (sent,), (received,) = successes(near.cq, 1), successes(far.cq, 1)
    assert (sent.wr_id, sent.opcode) == (3, e.IBV_WC_SEND)
    assert (received.wr_id, received.opcode, received.byte_len) == (7, e.IBV_WC_RECV, size)
    assert target.bytes() == changed(target, 0, source.bytes(0, size))


@pytest.mark.parametrize("size", SIZES)
@RC_UC
def test_a_write_arrives_whole(near, far, kind, size):
    a, b = pair(near, far, kind)
    source, target = regions(near, far)
    write(a, source.sge(8, size), target.remote(24))
    assert successes(near.cq, 1)[0].opcode == e.IBV_WC_RDMA_WRITE
    recv(b)
    send(a, source.sge(0, 0))  # UC has no acknowledgement: what comes later says that the write is there
    successes(far.cq, 1)
    assert target.bytes() == changed(target, 24, source.bytes(8, size))


@pytest.mark.parametrize("size", SIZES)
def test_a_read_arrives_whole(near, far, size):
    a, _b = pair(near, far)
    source, target = regions(far, near)
    read(a, target.sge(40, size), source.remote(16))
    completion = successes(near.cq, 1)[0]
    assert (completion.opcode, completion.byte_len) == (e.IBV_WC_RDMA_READ, size)
    assert target.bytes() == changed(target, 40, source.bytes(16, size))


@pytest.mark.parametrize("size", SIZES)
@RC_UC
def test_a_write_with_immediate_arrives_whole_and_takes_a_receive(near, far, kind, size):
    a, b = pair(near, far, kind)
    source, target = regions(near, far)
    recv(b, wr_id=9)
    write(a, source.sge(0, size), target.remote(3), imm=0x01020304)
    successes(near.cq, 1)
    received = successes(far.cq, 1)[0]
    assert (received.wr_id, received.opcode, received.byte_len) == (9, e.IBV_WC_RECV_RDMA_WITH_IMM, size)
    assert received.imm_data == 0x01020304 and received.wc_flags & e.IBV_WC_WITH_IMM
    assert target.bytes() == changed(target, 3, source.bytes(0, size))


@pytest.mark.parametrize("mtu", [e.IBV_MTU_256, e.IBV_MTU_512, e.IBV_MTU_1024, e.IBV_MTU_2048, e.IBV_MTU_4096])
def test_every_path_mtu_carries_all_three_operations(near, far, mtu):
    if mtu > near.context.query_port(PORT).active_mtu:
        pytest.skip(f"the port's MTU is smaller than {128 << mtu}")
    a, b = pair(near, far, path_mtu=mtu)
    source, target = regions(near, far)
    size = 3 * (128 << mtu) + 1
    recv(b, target.sge(0, size))
    send(a, source.sge(0, size))
    write(a, source.sge(size, size), target.remote(size))
    read(a, source.sge(2 * size, size), target.remote(2 * size))
    successes(near.cq, 3)
    successes(far.cq, 1)
    assert target.bytes() == changed(target, 0, source.bytes(0, 2 * size))
    assert source.bytes(2 * size, size) == target.bytes(2 * size, size)
    assert packets_until_now(a, b, guess=12) == 12


def packets_until_now(a, b, guess):
    """`guess`, if B expects that many packets more than A began with: A anew, from that PSN, is understood."""
    first = attributes(a).sq_psn
    move_to(a, e.IBV_QPS_RESET)
    a.to_rts(attributes(a, b, timeout=12, retry_cnt=1, sq_psn=first + guess, rq_psn=first))
    recv(b)
    send(a, a.side.region().sge(0, 0))
    return guess if status(completions(a.side.cq, 1)[0]) == "SUCCESS" and successes(b.side.cq, 1) else None


@pytest.mark.parametrize("size", [1, MTU, 2 * MTU + 1])
def test_a_write_may_end_with_the_last_byte_of_the_region(near, far, size):
    a, _b = pair(near, far)
    source, target = regions(near, far)
    write(a, source.sge(source.length - size, size), target.remote(target.length - size))
    successes(near.cq, 1)
    assert target.bytes() == changed(target, target.length - size, source.bytes(source.length - size))


@pytest.mark.parametrize("size", [1, MTU, 2 * MTU + 1])
def test_a_read_may_end_with_the_last_byte_of_the_region(near, far, size):
    a, _b = pair(near, far)
    source, target = regions(far, near)
    read(a, target.sge(target.length - size, size), source.remote(source.length - size))
    successes(near.cq, 1)
    assert target.bytes() == changed(target, target.length - size, source.bytes(source.length - size))


def test_the_whole_region_is_written_at_once(near, far):
    a, _b = pair(near, far, path_mtu=e.IBV_MTU_256)
    source, target = regions(near, far)
    write(a, source.sge(), target.remote())
    successes(near.cq, 1)
    assert target.bytes() == source.bytes()


@pytest.mark.parametrize("operation", [write, read])
def test_the_key_and_address_of_no_bytes_are_not_looked_at(near, far, operation):
    """IBA: the responder does not validate the R_Key of an RDMA request of length zero (C9-88, recalled)."""
    a, b = pair(near, far)
    region = near.region()
    operation(a, region.sge(0, 0), Remote(0xDEAD0000, 0x12345678))
    successes(near.cq, 1)
    recv(b)
    send(a, region.sge(0, 0))
    successes(far.cq, 1)


def test_a_receive_may_be_larger_than_the_message_and_keeps_its_rest(near, far):
    a, b = pair(near, far)
    source, target = regions(near, far)
    for size in (10, 2000, 0):
        recv(b, target.sge(PAGE, 4000))
        send(a, source.sge(size, size))
        successes(near.cq, 1)
        assert successes(far.cq, 1)[0].byte_len == size
    expected = changed(target, PAGE, source.bytes(2000, 2000))
    assert target.bytes() == expected


def test_both_directions_at_once(near, far):
    a, b = pair(near, far)
    one, other = near.region(PAGES), far.region(PAGES)
    one.fill(1)
    other.fill(2)
    size = 20 * MTU + 5
    write(a, one.sge(0, size), other.remote(30000))
    write(b, other.sge(0, size), one.remote(30000))
    read(a, one.sge(60000, 2000), other.remote(100))
    read(b, other.sge(60000, 2000), one.remote(100))
    successes(near.cq, 2)
    successes(far.cq, 2)
    for mine, yours in ((one, other), (other, one)):
        assert mine.bytes(30000, size) == yours.bytes(0, size)
        assert mine.bytes(60000, 2000) == yours.bytes(100, 2000)
