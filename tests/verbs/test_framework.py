"""The framework itself: guards, waiting, events, acceptance. What it promises holds on every device."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs import mem_alloc

from .accept import accept
from .memory import PAGE
from .sides import RC, attributes, datagram, datagrams, move_to, pair, recv, refusal, state
from .waiting import async_event, completions, has_cq_event, leftovers, successes


def test_a_completion_that_does_not_come_is_said(near):
    with pytest.raises(pytest.fail.Exception, match="1 of 1 completions missing after 0"):
        completions(near.cq, 1, seconds=0.05)
    assert leftovers(near.cq) == []


def test_waiting_for_an_event_ends(near):
    channel = near.channel()
    cq = near.new_cq(channel=channel)
    cq.req_notify()
    assert not has_cq_event(channel, cq, seconds=0.1)
    assert async_event(near.context, seconds=0.1) is None


def test_a_write_outside_of_a_region_is_found(near):
    region = near.region()
    mem_alloc.write(region.address + PAGE, b"!", 1)
    with pytest.raises(AssertionError, match="the page after the region"):
        region.check_guards()
    mem_alloc.write(region.address + PAGE, b"\x81", 1)


def test_pages_come_and_go(near):
    region = near.region(2, odp=True)
    region.fill(1)
    region.discard(0, PAGE)
    assert region.bytes(0, PAGE) == bytes(PAGE) != region.bytes(PAGE)
    region.protect(mem_alloc.PROT_READ_)
    region.protect(mem_alloc.PROT_READ_ | mem_alloc.PROT_WRITE_)
    moved = region.move()
    assert mem_alloc.read(moved, PAGE) == bytes(PAGE)
    region.map_anew()
    assert region.bytes() == bytes(2 * PAGE)
    region.unmap(PAGE)


def test_a_qp_goes_from_state_to_state(near):
    qp = near.qp(RC)
    assert state(qp) == "RESET"
    qp.to_init(attributes(qp))
    assert state(qp) == "INIT"
    assert refusal(move_to, qp, e.IBV_QPS_RTS) == "EINVAL"
    move_to(qp, e.IBV_QPS_ERR)
    assert state(qp) == "ERR"


def test_a_datagram_arrives(near, far):
    a, b = datagrams(near), datagrams(far)
    source, target = near.region(), far.region()
    source.fill(1)
    recv(b, target.sge())
    datagram(a, source.sge(0, 100), near.address_of(far), b.qp_num)
    successes(near.cq, 1)
    assert successes(far.cq, 1)[0].byte_len == 140
    assert target.bytes(40, 100) == source.bytes(0, 100)


def test_only_rxe_may_do_as_rxe_does(request):
    node = request.node
    accept(node, False, "a", 1, spec={1, 2})
    accept(node, True, "b", "x", spec="y", rxe="x", why="a reason")
    with pytest.raises(pytest.fail.Exception, match="expected y, observed x"):
        accept(node, False, "c", "x", spec="y", rxe="x", why="a reason")
    with pytest.raises(AssertionError, match="needs a reason"):
        accept(node, True, "d", "x", spec="y", rxe="x")
    verdicts = [value["verdict"] for _, value in node.user_properties]
    node.user_properties.clear()
    assert verdicts == ["spec", "rxe", "wrong"]


def test_a_pair_is_connected(near, far):
    assert [state(qp) for qp in pair(near, far)] == ["RTS", "RTS"]
