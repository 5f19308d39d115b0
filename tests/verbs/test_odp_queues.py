"""On-demand memory with SRQs, datagrams and inline data; with pinned memory; in many and in large regions."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

from .mappings import Mapping
from .memory import ALL, PAGE, make_pattern
from .odp import arrived, discard, join, joined, on_demand, outcome, page, without
from .sides import datagram, datagrams, read, recv, send, write
from .waiting import completions, leftovers, successes

ON_DEMAND = ALL | e.IBV_ACCESS_ON_DEMAND
GRH = 40
MIB = 1 << 20


def shared_queue(side):
    return SRQ(side.pd, SrqInitAttr(SrqAttr(max_wr=32, max_sge=2)))


def caps(side):
    return side.context.query_device_ex().odp_caps


def needs_cap(side, transport, cap):
    if not getattr(caps(side), f"{transport}_odp_caps") & cap:
        pytest.skip(f"the device says that {transport.upper()} cannot do this on demand")


# -- SRQs


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1, 2)], ids=["first", "middle", "last", "all"])
def test_a_receive_of_an_srq_faults(near, far, gone):
    needs_cap(far, "rc", e.IBV_ODP_SUPPORT_SRQ_RECV)
    ends = joined(near, far)
    srq = shared_queue(far)
    source, target = on_demand(near, far, 3)
    a, b = near.qp(), far.qp(srq=srq, max_recv_wr=0)
    join(a, b)
    source.fill(1)
    arrived("write", ends, source, target)
    target.fill(2)
    recv(srq, target.sge(), wr_id=4)
    discard(target, gone)
    send(a, source.sge())
    successes(near.cq, 1)
    (done,) = successes(far.cq, 1)
    assert (done.wr_id, done.byte_len, done.qp_num) == (4, source.length, b.qp_num)
    assert target.bytes() == make_pattern(1, source.length)


def test_messages_of_two_qps_fault_in_one_srq(near, far):
    needs_cap(far, "rc", e.IBV_ODP_SUPPORT_SRQ_RECV)
    srq = shared_queue(far)
    source, target = on_demand(near, far, 8)
    source.fill(1)
    pairs = [(near.qp(), far.qp(srq=srq, max_recv_wr=0)) for _ in range(2)]
    for a, b in pairs:
        join(a, b)
    for number in range(8):
        recv(srq, target.sge(number * PAGE, PAGE), wr_id=number)
    for number in range(8):
        send(pairs[number % 2][0], source.sge(number * PAGE, PAGE))
    successes(near.cq, 8)
    done = successes(far.cq, 8)
    assert sorted(each.wr_id for each in done) == list(range(8))
    got = sorted(target.bytes(number * PAGE, PAGE) for number in range(8))
    assert got == sorted(page(make_pattern(1, source.length), number) for number in range(8))


# -- datagrams


def test_a_datagram_from_absent_memory_is_zeros(near, far):
    needs_cap(near, "ud", e.IBV_ODP_SUPPORT_SEND)
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(odp=True), far.region(2)
    target.fill(2)
    recv(b, target.sge())
    ah = near.address_of(far)
    datagram(a, source.sge(0, 512), ah, b.qp_num)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == GRH + 512
    assert target.bytes(GRH, 512) == bytes(512)
    assert target.bytes(GRH + 512) == make_pattern(2, 2 * PAGE)[GRH + 512 :]


def test_a_datagram_from_a_known_page_that_went(near, far):
    needs_cap(near, "ud", e.IBV_ODP_SUPPORT_SEND)
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(odp=True), far.region(2)
    source.fill(1)
    ah = near.address_of(far)
    for expected in (make_pattern(1, 1024), bytes(1024)):
        recv(b, target.sge())
        datagram(a, source.sge(0, 1024), ah, b.qp_num)
        successes(near.cq, 1)
        successes(far.cq, 1)
        assert target.bytes(GRH, 1024) == expected
        source.discard()


def test_a_datagram_into_absent_memory_arrives_or_is_dropped(near, far, accept):
    """A device may have no room to keep a datagram while its page comes. The next one finds the page."""
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(), far.region(odp=True)
    source.fill(1)
    ah = near.address_of(far)
    for _ in range(3):
        recv(b, target.sge())
    datagram(a, source.sge(0, 256), ah, b.qp_num)
    successes(near.cq, 1)
    first = len(leftovers(far.cq))
    datagram(a, source.sge(0, 256), ah, b.qp_num)
    successes(near.cq, 1)
    assert len(completions(far.cq, 1)) == 1
    why = "recalled, IBA 9.8.3: an unreliable datagram may be lost, and no receive is consumed by one that is"
    accept("datagrams that arrived before the page", first, spec={0, 1}, why=why)


# -- inline data


@pytest.mark.parametrize("op", ["send", "write"])
def test_inline_data_of_absent_memory_is_what_the_program_sees(near, far, op):
    a, b = joined(near, far, max_inline_data=64)
    source, target = on_demand(near, far, 1)
    target.fill(2)
    inline = e.IBV_SEND_SIGNALED | e.IBV_SEND_INLINE
    if op == "send":
        recv(b, target.sge())
        send(a, source.sge(0, 64), flags=inline)
    else:
        write(a, source.sge(0, 64), target.remote(), flags=inline)
    source.fill(1)
    successes(near.cq, 1)
    if op == "send":
        successes(far.cq, 1)
    assert target.bytes() == bytes(64) + make_pattern(2, PAGE)[64:]


# -- with pinned memory


def test_a_list_may_mix_pinned_and_on_demand_memory(near, far):
    a, b = joined(near, far)
    pinned, source = near.region(1), near.region(1, odp=True)
    there, target = far.region(1), far.region(1, odp=True)
    pinned.fill(1)
    source.fill(2)
    recv(b, [target.sge(), there.sge()])
    send(a, [pinned.sge(), source.sge()])
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert target.bytes() == make_pattern(1, PAGE)
    assert there.bytes() == make_pattern(2, PAGE)


@pytest.mark.parametrize("first", ["pinned", "on demand"])
def test_a_page_that_is_pinned_and_on_demand_is_one_page(near, far, first):
    a, _b = joined(near, far)
    source, target = near.region(), far.region(odp=first == "on demand")
    other = MR(far.pd, target.length, ALL if first == "on demand" else ON_DEMAND, target.address)
    target.fill(2)
    source.fill(1)
    write(a, source.sge(0, 512), target.remote())
    write(a, source.sge(512, 512), target.remote()._replace(rkey=other.rkey))
    successes(near.cq, 2)
    kept = make_pattern(2, PAGE)
    moved = make_pattern(1, PAGE)
    assert target.bytes() == moved[512:1024] + kept[512:]
    other.close()


def test_a_page_under_two_on_demand_regions_goes_and_comes_for_both(near, far):
    a, _b = joined(near, far)
    source, target = on_demand(near, far, 2)
    other = MR(far.pd, PAGE, ON_DEMAND, target.address + PAGE)
    source.fill(1)
    write(a, source.sge(), target.remote())
    write(a, source.sge(0, PAGE), target.remote(PAGE)._replace(rkey=other.rkey))
    successes(near.cq, 2)
    assert target.bytes() == make_pattern(1, PAGE) * 2
    target.discard()
    write(a, source.sge(PAGE, 64), target.remote(PAGE)._replace(rkey=other.rkey))
    successes(near.cq, 1)
    assert target.bytes() == bytes(PAGE) + make_pattern(1, 2 * PAGE)[PAGE : PAGE + 64] + bytes(PAGE - 64)
    write(a, source.sge(), target.remote())
    successes(near.cq, 1)
    assert target.bytes() == make_pattern(1, 2 * PAGE)
    other.close()


def test_deregistering_one_of_two_regions_leaves_the_other(near, far):
    a, _b = joined(near, far)
    source, target = on_demand(near, far, 2)
    other = MR(far.pd, target.length, ON_DEMAND, target.address)
    source.fill(1)
    write(a, source.sge(), target.remote())
    write(a, source.sge(), target.remote()._replace(rkey=other.rkey))
    successes(near.cq, 2)
    other.close()
    target.fill(2)
    write(a, source.sge(), target.remote())
    successes(near.cq, 1)
    assert target.bytes() == make_pattern(1, source.length)


def test_source_and_target_may_be_one_region(near, far):
    a, _b = joined(near, near)
    region = near.region(4, odp=True)
    region.fill(1, 2 * PAGE)
    region.discard(0, 2 * PAGE)
    write(a, region.sge(2 * PAGE, 2 * PAGE), region.remote())
    successes(near.cq, 1)
    assert region.bytes(0, 2 * PAGE) == region.bytes(2 * PAGE) == make_pattern(1, 2 * PAGE)


def test_a_registration_sees_pages_that_are_there(near, far):
    """A region over memory that the program has used needs no faults to send what is in it."""
    ends = joined(near, far)
    plain, target = near.region(4), far.region(4)
    plain.fill(3)
    source = near.region(4, odp=True)
    source.fill(1)
    source.mr.close()
    source.mr = MR(near.pd, source.length, ON_DEMAND, source.address)
    arrived("write", ends, source, target)
    assert target.bytes() == make_pattern(1, source.length)


# -- many and large


def test_many_small_regions(near, far):
    a, _b = joined(near, far)
    count = 150
    source, target = near.region(), Mapping(far, count)
    source.fill(1)
    mrs = [MR(far.pd, 64, ON_DEMAND, target.address + number * PAGE) for number in range(count)]
    for start in range(0, count, 50):
        for number in range(start, start + 50):
            write(a, source.sge(number * 8, 64), target.remote(number * PAGE)._replace(rkey=mrs[number].rkey))
        successes(near.cq, 50)
    sent = make_pattern(1, PAGE)
    for number in range(count):
        assert target.bytes(number * PAGE, 128) == sent[number * 8 : number * 8 + 64] + bytes(64)
    for mr in mrs:
        mr.close()


def test_a_large_region_of_which_little_is_used(near, far):
    a, _b = joined(near, far)
    source, target = near.region(2), Mapping(far, 64 * MIB // PAGE)
    source.fill(1)
    places = (0, 1 * MIB, 2 * MIB - PAGE, 33 * MIB, 64 * MIB - 2 * PAGE)
    for offset in places:
        write(a, source.sge(), target.remote(offset))
    successes(near.cq, len(places))
    for offset in places:
        assert target.bytes(offset, 2 * PAGE) == make_pattern(1, 2 * PAGE)
    assert target.bytes(5 * MIB, PAGE) == bytes(PAGE)


def test_a_large_region_loses_all_of_it_at_once(near, far):
    a, _b = joined(near, far)
    source, target = near.region(), Mapping(far, 16 * MIB // PAGE)
    source.fill(1)
    places = range(0, 16 * MIB, MIB)
    for _ in range(2):
        for offset in places:
            write(a, source.sge(), target.remote(offset))
        successes(near.cq, len(places))
        assert all(target.bytes(offset, PAGE) == make_pattern(1, PAGE) for offset in places)
        target.discard()
        assert all(target.bytes(offset, PAGE) == bytes(PAGE) for offset in places)


def test_a_message_of_a_mebibyte_faults_all_the_way(near, far):
    ends = joined(near, far)
    source, target = Mapping(near, MIB // PAGE), Mapping(far, MIB // PAGE)
    source.fill(1)
    for gone in ((), (1,), range(0, 256, 2)):
        discard(source, gone)
        discard(target, range(0, 256, 3))
        arrived("write", ends, source, target)
        assert target.bytes() == source.bytes() == without(make_pattern(1, MIB), gone)
        source.fill(1)


def test_reads_and_writes_over_one_absent_page_at_once(near, far):
    """A READ sees the page before or after the WRITE that is under way on another connection, never anything else."""
    writer, _w = joined(near, far)
    reader, _r = joined(near, far)
    source, target = on_demand(near, far, 1)
    into = near.region(8)
    source.fill(1)
    write(writer, source.sge(), target.remote())
    for number in range(8):
        read(reader, into.sge(number * PAGE, PAGE), target.remote())
    successes(near.cq, 9)
    for number in range(8):
        assert page(into.bytes(), number) in (bytes(PAGE), make_pattern(1, PAGE))
    read(reader, into.sge(0, PAGE), target.remote())
    assert outcome(reader) == "SUCCESS"
    assert page(into.bytes(), 0) == make_pattern(1, PAGE)
