"""UD: sizes up to one packet, the header in front, who it is from, and what is dropped."""

from __future__ import annotations

import pytest
from pyverbs import enums as e

from .memory import make_pattern
from .sides import PORT, QKEY, UD, attributes, datagram, datagrams, move_to, pair, recv, refusal, state
from .waiting import completions, has_cq_event, leftovers, status, successes

GRH = 40
MTU = 1024


class Pair:
    """A UD QP on each side, and an address handle from the near to the far one."""

    def __init__(self, near, far):
        self.near, self.far = near, far
        self.a, self.b = datagrams(near), datagrams(far)
        self.ah = near.address_of(far)
        self.source, self.target = near.region(2), far.region(2)
        self.source.fill(1)

    def send(self, size=8, qkey=QKEY, qpn=None, **options):
        datagram(self.a, self.source.sge(0, size), self.ah, self.b.qp_num if qpn is None else qpn, qkey, **options)


@pytest.fixture
def ud(near, far):
    return Pair(near, far)


def path_mtu(side):
    return 128 << side.context.query_port(PORT).active_mtu


@pytest.mark.parametrize("size", [0, 1, 3, 63, 64, MTU - 1, MTU])
def test_a_datagram_of_any_size_arrives_behind_its_header(ud, size):
    recv(ud.b, ud.target.sge(), wr_id=6)
    ud.send(size, wr_id=5)
    sent, received = successes(ud.near.cq, 1)[0], successes(ud.far.cq, 1)[0]
    assert (sent.wr_id, sent.opcode) == (5, e.IBV_WC_SEND)
    assert (received.wr_id, received.opcode, received.byte_len) == (6, e.IBV_WC_RECV, GRH + size)
    assert ud.target.bytes(GRH, size) == ud.source.bytes(0, size)
    assert ud.target.bytes(GRH + size) == bytes(ud.target.length - GRH - size)


def test_a_datagram_fills_the_largest_packet(near, far):
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(2), far.region(2)
    source.fill(1)
    size = path_mtu(near)
    recv(b, target.sge())
    datagram(a, source.sge(0, size), near.address_of(far), b.qp_num)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == GRH + size
    assert target.bytes(GRH, size) == source.bytes(0, size)


def test_a_datagram_larger_than_a_packet_fails(ud, accept):
    """A message of UD is one packet: what is longer never leaves."""
    size = path_mtu(ud.near) + 1
    recv(ud.b, ud.target.sge())
    answer = refusal(ud.send, size)
    if answer == "accepted":
        answer = status(completions(ud.near.cq, 1)[0])
    why = (
        "IBA 11.6.2 (recalled): a local length error; rxe drops the datagram and completes it (rxe_req.c, 'fake send')"
    )
    accept("a datagram longer than the MTU", answer, spec={"EINVAL", "LOC_LEN_ERR", "LOC_QP_OP_ERR"},
           rxe="SUCCESS", why=why)  # fmt: skip
    assert leftovers(ud.far.cq) == []
    assert ud.target.bytes() == bytes(ud.target.length)


def test_the_header_is_that_of_ip_version_4(ud):
    """RoCE v2 over IPv4: the IP header lies in the last 20 of the 40 bytes (Annex A17.4.5.2, recalled)."""
    recv(ud.b, ud.target.sge())
    ud.send(100)
    received = successes(ud.far.cq, 1)[0]
    assert received.wc_flags & e.IBV_WC_GRH
    header = ud.target.bytes(20, 20)
    assert header[0] == 0x45 and header[9] == 17  # version and length; UDP
    address = bytes(int(part) for part in ipv4(ud.near.gid))
    assert header[12:16] == header[16:20] == address


def ipv4(gid):
    digits = str(gid).replace(":", "")[-8:]
    return [int(digits[index : index + 2], 16) for index in range(0, 8, 2)]


def test_a_datagram_says_who_sent_it(near, far, ud):
    other = datagrams(near)
    for qp in (ud.a, other, ud.a):
        recv(ud.b, ud.target.sge())
        datagram(qp, ud.source.sge(0, 8), ud.ah, ud.b.qp_num)
        received = successes(far.cq, 1)[0]
        assert (received.src_qp, received.qp_num) == (qp.qp_num, ud.b.qp_num)
    successes(near.cq, 3)


def test_one_queue_sends_to_many(near, far, ud):
    others = [datagrams(far) for _ in range(4)]
    for index, qp in enumerate(others):
        recv(qp, ud.target.sge(200 * index, 200), wr_id=index)
        datagram(ud.a, ud.source.sge(64 * index, 64), ud.ah, qp.qp_num)
    successes(near.cq, 4)
    received = successes(far.cq, 4)
    assert [(each.wr_id, each.qp_num) for each in received] == [(i, qp.qp_num) for i, qp in enumerate(others)]
    for index in range(4):
        assert ud.target.bytes(200 * index + GRH, 64) == ud.source.bytes(64 * index, 64)


def test_many_send_to_one_queue(near, far, ud):
    senders = [datagrams(near) for _ in range(6)]
    for index, qp in enumerate(senders):
        recv(ud.b, ud.target.sge(100 * index, 100), wr_id=index)
        datagram(qp, ud.source.sge(0, 8), ud.ah, ud.b.qp_num)
    successes(near.cq, 6)
    received = successes(far.cq, 6)
    assert sorted(each.src_qp for each in received) == sorted(qp.qp_num for qp in senders)


def test_a_queue_may_send_to_itself(near):
    qp, region = datagrams(near), near.region()
    region.fill(1)
    data = region.bytes(0, 100)
    recv(qp, region.sge(2000, 200), wr_id=1)
    datagram(qp, region.sge(0, 100), near.address_of(near), qp.qp_num, wr_id=2)
    done = {each.wr_id: each for each in successes(near.cq, 2)}
    assert set(done) == {1, 2} and done[1].src_qp == qp.qp_num
    assert region.bytes(2000 + GRH, 100) == data


@pytest.mark.parametrize("imm", [0, 0x11223344])
def test_immediate_data_of_a_datagram(ud, imm):
    recv(ud.b, ud.target.sge())
    ud.send(10, imm=imm)
    received = successes(ud.far.cq, 1)[0]
    assert received.wc_flags & e.IBV_WC_WITH_IMM and received.imm_data == imm
    assert received.byte_len == GRH + 10


def test_a_datagram_is_gathered_and_scattered(ud):
    source, target = ud.source, ud.target
    recv(ud.b, [target.sge(0, 10), target.sge(100, 50), target.sge(300, 200)])
    pieces = [source.sge(0, 33), source.sge(500, 1), source.sge(1000, 90)]
    datagram(ud.a, pieces, ud.ah, ud.b.qp_num)
    successes(ud.near.cq, 1)
    assert successes(ud.far.cq, 1)[0].byte_len == GRH + 124
    data = source.bytes(0, 33) + source.bytes(500, 1) + source.bytes(1000, 90)
    got = target.bytes(0, 10) + target.bytes(100, 50) + target.bytes(300, 104)
    assert got[GRH:] == data


def nothing_arrives_but_the_next(ud):
    """The datagram before is lost without a word; the receive takes the next one."""
    successes(ud.near.cq, 1)
    assert leftovers(ud.far.cq, 5) == []
    assert ud.target.bytes() == bytes(ud.target.length)
    ud.source.fill(9)
    ud.send(20)
    successes(ud.near.cq, 1)
    assert successes(ud.far.cq, 1)[0].byte_len == GRH + 20
    assert ud.target.bytes(GRH, 20) == make_pattern(9, 20)
    assert (state(ud.a), state(ud.b)) == ("RTS", "RTS")


def test_a_wrong_qkey_is_dropped(ud):
    recv(ud.b, ud.target.sge())
    ud.send(20, qkey=QKEY + 1)
    nothing_arrives_but_the_next(ud)


def test_a_wrong_qp_number_is_dropped(ud):
    recv(ud.b, ud.target.sge())
    ud.send(20, qpn=0xABCDE)
    nothing_arrives_but_the_next(ud)


def test_a_datagram_for_a_connected_qp_is_dropped(near, far, ud):
    _c, d = pair(near, far)
    recv(d, ud.target.sge())
    recv(ud.b, ud.target.sge())
    ud.send(20, qpn=d.qp_num)
    nothing_arrives_but_the_next(ud)
    assert state(d) == "RTS"


def test_a_datagram_without_a_receive_is_lost(ud):
    ud.send(20)
    successes(ud.near.cq, 1)
    leftovers(ud.near.cq, 3)
    recv(ud.b, ud.target.sge())
    assert leftovers(ud.far.cq, 5) == []
    ud.send(30)
    successes(ud.near.cq, 1)
    assert successes(ud.far.cq, 1)[0].byte_len == GRH + 30


def test_a_datagram_to_a_queue_in_reset_or_init_is_dropped(near, far, ud):
    sleeper = far.qp(UD)
    ud.send(20, qpn=sleeper.qp_num)
    sleeper.to_init(attributes(sleeper))
    recv(sleeper, ud.target.sge(), wr_id=3)
    ud.send(20, qpn=sleeper.qp_num)
    successes(near.cq, 2)
    assert leftovers(far.cq, 5) == []
    sleeper.to_rtr(attributes(sleeper))
    ud.send(25, qpn=sleeper.qp_num)
    successes(near.cq, 1)
    received = successes(far.cq, 1)[0]
    assert (received.wr_id, received.byte_len) == (3, GRH + 25)


def test_a_qkey_with_the_high_bit_stands_for_that_of_the_queue(near, far, ud, accept):
    recv(ud.b, ud.target.sge())
    ud.send(20, qkey=0x80000000)
    successes(near.cq, 1)
    arrived = [status(each) for each in leftovers(far.cq)]
    why = "IBA 10.2.5 (recalled): the QP's own Q_Key takes the place of a controlled one; rxe sends it as it is"
    accept("a datagram with a controlled Q_Key", arrived, spec=["SUCCESS"], rxe=[], why=why)


def test_the_queue_may_change_its_qkey(ud):
    recv(ud.b, ud.target.sge())
    move_to(ud.b, e.IBV_QPS_RTS, attributes(ud.b, qkey=0x77), e.IBV_QP_QKEY)
    assert ud.b.query(0)[0].qkey == 0x77
    ud.send(20)
    successes(ud.near.cq, 1)
    assert leftovers(ud.far.cq, 5) == []
    ud.send(20, qkey=0x77)
    successes(ud.near.cq, 1)
    successes(ud.far.cq, 1)


def test_a_hundred_datagrams_arrive_in_order(near, far):
    a, b = datagrams(near, max_send_wr=128), datagrams(far, max_recv_wr=128)
    source, target = near.region(), far.region(4)
    source.fill(1)
    ah = near.address_of(far)
    for index in range(100):
        recv(b, target.sge(100 * index, 100), wr_id=index)
    for index in range(100):
        datagram(a, source.sge(8 * index, 40), ah, b.qp_num, wr_id=index)
    assert [each.wr_id for each in successes(near.cq, 100)] == list(range(100))
    assert [each.wr_id for each in successes(far.cq, 100)] == list(range(100))
    for index in range(100):
        assert target.bytes(100 * index + GRH, 40) == source.bytes(8 * index, 40)


def test_the_solicited_bit_of_a_datagram_wakes(near, far, ud):
    channel = far.channel()
    cq = far.new_cq(channel=channel)
    qp = datagrams(far, rcq=cq)
    cq.req_notify(solicited_only=True)
    for flags in (e.IBV_SEND_SIGNALED, e.IBV_SEND_SIGNALED | e.IBV_SEND_SOLICITED):
        recv(qp, ud.target.sge())
        ud.send(8, qpn=qp.qp_num, flags=flags)
        successes(near.cq, 1)
        assert has_cq_event(channel, cq, seconds=5 if flags & e.IBV_SEND_SOLICITED else 0.1) == bool(
            flags & e.IBV_SEND_SOLICITED
        )
