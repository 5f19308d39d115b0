"""Paths: addresses, loops, depths of outstanding reads, large messages."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.addr import AH, AHAttr, GlobalRoute

from .memory import PAGE
from .sides import (
    PORT,
    RC,
    UC,
    atomic,
    attributes,
    chain,
    connect,
    datagram,
    datagrams,
    pair,
    read,
    recv,
    request,
    send,
    write,
)
from .waiting import successes

MAPPED = "0000:0000:0000:0000:0000:ffff:"


def gids(side):
    """(index, GID) of the port's RoCE v2 GIDs."""
    found = []
    for index in range(min(side.context.query_port(PORT).gid_tbl_len, 16)):
        gid = side.context.query_gid(PORT, index)
        is_set = any(digit not in "0:" for digit in str(gid))
        if is_set and side.context.query_gid_type(PORT, index) == e.IBV_GID_TYPE_SYSFS_ROCE_V2:
            found.append((index, gid))
    return found


@pytest.mark.parametrize("which", ["ipv4", "link_local"])
def test_a_connection_over_each_kind_of_address(near, far, which):
    prefix = MAPPED if which == "ipv4" else "fe80:"
    choice = [(index, gid) for index, gid in gids(near) if str(gid).startswith(prefix)]
    if not choice:
        pytest.skip(f"the port has no {which} GID")
    index, gid = choice[0]
    a, b = near.qp(), far.qp()
    for qp, peer in ((a, b), (b, a)):
        attr = attributes(qp, peer)
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=GlobalRoute(dgid=gid, sgid_index=index, hop_limit=64))
        qp.to_rts(attr)
    source, target = near.region(2), far.region(2)
    source.fill(1)
    write(a, source.sge(0, 5000), target.remote())
    read(a, source.sge(6000, 100), target.remote(100))
    successes(near.cq, 2)
    assert target.bytes(0, 5000) == source.bytes(0, 5000)
    assert source.bytes(6000, 100) == source.bytes(100, 100)


@pytest.mark.parametrize("kind", [RC, UC], ids=["rc", "uc"])
def test_a_qp_may_be_connected_to_itself(near, kind):
    qp, region = near.qp(kind), near.region(2)
    region.fill(1)
    qp.to_rts(attributes(qp, qp))
    recv(qp, region.sge(PAGE, 3000), wr_id=1)
    send(qp, region.sge(0, 3000), wr_id=2)
    assert sorted(each.wr_id for each in successes(near.cq, 2)) == [1, 2]
    assert region.bytes(PAGE, 3000) == region.bytes(0, 3000)


def test_a_self_connected_qp_reads_and_counts(near):
    qp, region = near.qp(), near.region(2)
    region.fill(1)
    qp.to_rts(attributes(qp, qp))
    expected, word = region.bytes(0, 4000), region.bytes(4080, 8)
    read(qp, region.sge(PAGE, 4000), region.remote())
    atomic(qp, region.sge(PAGE + 4000, 8), region.remote(4080), add=1)
    successes(near.cq, 2)
    assert region.bytes(PAGE, 4000) == expected
    assert region.bytes(PAGE + 4000, 8) == word
    assert region.bytes(4080, 8) == ((int.from_bytes(word, "little") + 1) % 2**64).to_bytes(8, "little")


def test_two_qps_of_one_side_talk(near):
    a, b = near.qp(), near.qp()
    connect(a, b)
    one, other = near.region(), near.region()
    one.fill(1)
    recv(b, other.sge(), wr_id=5)
    send(a, one.sge(), wr_id=6)
    assert sorted(each.wr_id for each in successes(near.cq, 2)) == [5, 6]
    assert other.bytes() == one.bytes()


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_more_reads_than_may_be_outstanding_are_all_done_in_order(near, far, depth):
    a, _b = pair(near, far, max_rd_atomic=depth, max_dest_rd_atomic=depth)
    target, source = near.region(8), far.region(8)
    source.fill(3)
    wrs = [request(e.IBV_WR_RDMA_READ, target.sge(1500 * index, 1500), source.remote(1500 * index), wr_id=index)
           for index in range(20)]  # fmt: skip
    a.post_send(chain(*wrs))
    assert [each.wr_id for each in successes(near.cq, 20)] == list(range(20))
    assert target.bytes(0, 30000) == source.bytes(0, 30000)


def test_a_requester_may_use_less_depth_than_the_responder_has(near, far):
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, max_rd_atomic=1, max_dest_rd_atomic=1))
    b.to_rts(attributes(b, a, max_rd_atomic=8, max_dest_rd_atomic=8))
    target, source = near.region(2), far.region(2)
    source.fill(3)
    for index in range(8):
        read(a, target.sge(1000 * index, 1000), source.remote(1000 * index))
    successes(near.cq, 8)
    assert target.bytes(0, 8000) == source.bytes(0, 8000)


def test_reads_and_fenced_writes_do_not_overtake(near, far):
    """A READ between two WRITEs to its source sees the first and not the second, if that one is fenced.

    Without the fence only the first half holds (IBA 10.8.3.3, table of orders, recalled).
    """
    a, _b = pair(near, far)
    own, target = near.region(4), far.region(4)
    own.fill(1)
    for index in range(10):
        write(a, own.sge(8 * index, 8), target.remote(), flags=e.IBV_SEND_FENCE)
        read(a, own.sge(PAGE + 8 * index, 8), target.remote(), flags=0)
    write(a, own.sge(0, 8), target.remote(), flags=e.IBV_SEND_FENCE | e.IBV_SEND_SIGNALED)
    successes(near.cq, 1)
    assert own.bytes(PAGE, 80) == own.bytes(0, 80)


@pytest.mark.parametrize("operation", ["send", "write", "read"])
def test_a_megabyte_arrives_whole(near, far, operation):
    a, b = pair(near, far)
    pages = 257
    source, target = (far, near) if operation == "read" else (near, far)
    source, target = source.region(pages), target.region(pages)
    source.fill(1)
    size = 256 * PAGE + 3
    if operation == "send":
        recv(b, target.sge())
        send(a, source.sge(5, size))
        successes(far.cq, 1)
    elif operation == "write":
        write(a, source.sge(5, size), target.remote())
    else:
        read(a, target.sge(0, size), source.remote(5))
    successes(near.cq, 1)
    assert target.bytes(0, size) == source.bytes(5, size)
    assert target.bytes(size) == bytes(target.length - size)


def test_the_traffic_class_of_a_datagram_is_in_its_header(near, far, accept):
    """RoCE v2 carries the traffic class in the IP header's TOS byte (Annex A17, recalled)."""
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(), far.region()
    route = GlobalRoute(dgid=far.gid, sgid_index=near.gid_index, hop_limit=33, traffic_class=0x68)
    ah = AH(near.pd, attr=AHAttr(port_num=PORT, is_global=1, gr=route))
    recv(b, target.sge())
    datagram(a, source.sge(0, 8), ah, b.qp_num)
    successes(near.cq, 1)
    successes(far.cq, 1)
    header = target.bytes(20, 20)
    assert header[1] & 0xFC == 0x68
    why = (
        "Linux resolves the path of an address handle and puts the route's hop limit in place of the program's "
        "(ib_resolve_unicast_gid_dmac, recalled); libraries that make their handles themselves keep the program's"
    )
    accept("time to live", header[8], spec={33, 64}, why=why)
    ah.close()


def test_different_starting_psns_in_each_direction(near, far):
    a, b = near.qp(), far.qp()
    a.to_rts(attributes(a, b, sq_psn=1, rq_psn=0x800000))
    b.to_rts(attributes(b, a, sq_psn=0x800000, rq_psn=1))
    one, other = near.region(2), far.region(2)
    one.fill(1)
    other.fill(2)
    write(a, one.sge(0, 4000), other.remote(4000))
    write(b, other.sge(0, 4000), one.remote(4000))
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert other.bytes(4000, 4000) == one.bytes(0, 4000) and one.bytes(4000, 4000) == other.bytes(0, 4000)
