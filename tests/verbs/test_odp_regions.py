"""What an on-demand region may be: capabilities, access flags, implicit regions, registration anew."""

from __future__ import annotations

import errno

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.wr import SGE

from .memory import ALL, LOCAL, PAGE, Remote, make_pattern
from .odp import RECEIVED, arrived, joined, on_demand, outcome
from .sides import UC, atomic, needs, read, recv, refusal, send, write
from .waiting import leftovers, successes

DEMAND = e.IBV_ACCESS_ON_DEMAND
ON_DEMAND = ALL | DEMAND
PAGES = 2
REREG_MEMORY, REREG_ACCESS = 1, 4  # ibv_rereg_mr_flags


@pytest.fixture
def caps(near):
    found = near.context.query_device_ex().odp_caps
    if not found.general_caps & e.IBV_ODP_SUPPORT:
        pytest.skip("the device has no on-demand paging")
    return found


# -- capabilities


def test_a_device_with_on_demand_paging_registers(near, caps):
    assert near.region(odp=True).rkey


@pytest.mark.parametrize("cap", ["SEND", "RECV", "WRITE", "READ", "ATOMIC"])
def test_rc_does_what_it_says_on_absent_memory(near, far, caps, cap):
    if not caps.rc_odp_caps & getattr(e, f"IBV_ODP_SUPPORT_{cap}"):
        pytest.skip(f"the device does not say {cap} for RC")
    a, b = joined(near, far)
    here, there = near.region(PAGES, odp=cap != "RECV"), far.region(PAGES, odp=cap != "SEND")
    there.fill(2)
    there.discard(PAGE)
    if cap in ("SEND", "RECV"):
        recv(b, there.sge())
        send(a, here.sge())
        successes(far.cq, 1)
    elif cap == "ATOMIC":
        atomic(a, here.sge(0, 8), there.remote(PAGE), add=1)
    else:
        (write if cap == "WRITE" else read)(a, here.sge(), there.remote())
    successes(near.cq, 1)
    if cap == "READ":
        assert here.bytes() == make_pattern(2, PAGE) + bytes(PAGE)
    elif cap == "ATOMIC":
        assert there.bytes(PAGE) == (1).to_bytes(8, "little") + bytes(PAGE - 8)
    else:
        assert there.bytes() == bytes(2 * PAGE)


@pytest.mark.parametrize("op", ["send", "write"])
def test_uc_on_absent_memory_without_the_capability(near, far, caps, accept, op):
    """A promise is missing, not a prohibition: the message arrives whole, or is lost, or its request fails."""
    if caps.uc_odp_caps:
        pytest.skip("the device says that UC can do it")
    a, b = joined(near, far, UC)
    source, target = on_demand(near, far, PAGES)
    source.fill(1)
    if op == "send":
        recv(b, target.sge())
        send(a, source.sge())
    else:
        write(a, source.sge(), target.remote())
    said = outcome(a)
    leftovers(far.cq)
    came = target.bytes() == make_pattern(1, source.length)
    assert came or target.bytes() == bytes(target.length)
    why = "open: the device says nothing about UC, so neither delivery nor refusal is asked of it (rxe delivers)"
    accept("outcome", f"{said}, {'arrived' if came else 'lost'}", why=why,
           spec={"SUCCESS, arrived", "SUCCESS, lost", "LOC_PROT_ERR, lost", "LOC_QP_OP_ERR, lost"})  # fmt: skip


def test_uc_with_known_pages(near, far, caps):
    """What the program has touched before it registers the region, the device has: no fault, no loss."""
    a, b = joined(near, far, UC)
    plain_source, plain_target = near.region(PAGES), far.region(PAGES)
    plain_source.fill(1)
    plain_target.fill(2)
    here = MR(near.pd, plain_source.length, ON_DEMAND, plain_source.address)
    there = MR(far.pd, plain_target.length, ON_DEMAND, plain_target.address)
    recv(b, SGE(plain_target.address, plain_target.length, there.lkey))
    send(a, SGE(plain_source.address, plain_source.length, here.lkey))
    successes(near.cq, 1)
    successes(far.cq, 1)
    assert plain_target.bytes() == make_pattern(1, plain_target.length)
    here.close()
    there.close()


def test_implicit_registration_is_as_the_device_says(near, caps):
    said = refusal(MR, near.pd, 0, ON_DEMAND, None, True)
    if caps.general_caps & e.IBV_ODP_SUPPORT_IMPLICIT:
        assert said == "accepted"
    else:
        assert said in ("ENOTSUP", "EINVAL")


@pytest.fixture
def everything(near, far, caps):
    """An implicit region of each side."""
    if not caps.general_caps & e.IBV_ODP_SUPPORT_IMPLICIT:
        pytest.skip("the device has no implicit regions")
    return MR(near.pd, 0, ON_DEMAND, implicit=True), MR(far.pd, 0, ON_DEMAND, implicit=True)


@pytest.mark.parametrize("op", ["send", "write", "read", "atomic"])
def test_an_implicit_region_is_all_memory(near, far, everything, op):
    a, b = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    source.fill(1)
    source.discard(0, PAGE)
    element = SGE(source.address, source.length, everything[0].lkey)
    there = Remote(target.address, everything[1].rkey)
    if op == "send":
        recv(b, SGE(target.address, target.length, everything[1].lkey))
        send(a, element)
        successes(far.cq, 1)
    elif op == "atomic":
        atomic(a, SGE(source.address, 8, everything[0].lkey), there, add=7)
    elif op == "write":
        write(a, element, there)
    else:
        target.fill(3)
        read(a, element, there)
    successes(near.cq, 1)
    if op == "read":
        assert source.bytes() == make_pattern(3, source.length)
    elif op == "atomic":
        assert target.bytes(0, 8) == (7).to_bytes(8, "little")
    else:
        assert target.bytes() == bytes(PAGE) + make_pattern(1, source.length)[PAGE:]


def test_an_implicit_region_has_memory_mapped_later(near, far, everything):
    a, _b = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    target.unmap()
    target.map_anew()
    source.fill(1)
    write(a, source.sge(), Remote(target.address, everything[1].rkey))
    successes(near.cq, 1)
    assert target.bytes() == make_pattern(1, source.length)


def test_an_implicit_region_has_no_memory_where_nothing_is_mapped(near, far, everything):
    a, _b = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    target.unmap(0, PAGE)
    write(a, source.sge(), Remote(target.address, everything[1].rkey))
    assert outcome(a) == "REM_ACCESS_ERR"


# -- access


@pytest.mark.parametrize("access", [e.IBV_ACCESS_REMOTE_WRITE, e.IBV_ACCESS_REMOTE_ATOMIC], ids=["write", "atomic"])
def test_remote_writes_need_local_ones(near, caps, access):
    region = near.region()
    assert refusal(MR, near.pd, PAGE, access | DEMAND, region.address) == "EINVAL"


RIGHTS = {"write": e.IBV_ACCESS_REMOTE_WRITE, "read": e.IBV_ACCESS_REMOTE_READ, "atomic": e.IBV_ACCESS_REMOTE_ATOMIC}


@pytest.mark.parametrize("has", RIGHTS)
@pytest.mark.parametrize("wants", RIGHTS)
def test_a_right_that_is_missing_is_missing_on_absent_memory_too(near, far, caps, has, wants):
    a, _b = joined(near, far)
    here = near.region(PAGES)
    there = far.region(PAGES, LOCAL | RIGHTS[has], odp=True)
    if wants == "atomic":
        atomic(a, here.sge(0, 8), there.remote(), add=1)
    else:
        (write if wants == "write" else read)(a, here.sge(), there.remote())
    assert outcome(a) == ("SUCCESS" if wants == has else "REM_ACCESS_ERR")


def test_a_receive_into_a_region_without_local_write_fails(near, far, caps, accept):
    a, b = joined(near, far)
    source = near.region(PAGES)
    target = far.region(PAGES, e.IBV_ACCESS_REMOTE_READ, odp=True)
    recv(b, target.sge())
    send(a, source.sge())
    assert outcome(a) == "REM_OP_ERR"
    accept("the receive's status", outcome(b), spec="LOC_PROT_ERR", rxe="LOC_QP_OP_ERR", why=RECEIVED)
    assert target.bytes() == bytes(target.length)


def test_one_page_has_other_rights_under_other_regions(near, far, caps):
    a, _b = joined(near, far)
    second, _there = joined(near, far)
    source = near.region(PAGES)
    target = far.region(PAGES, LOCAL | e.IBV_ACCESS_REMOTE_READ, odp=True)
    writable = MR(far.pd, target.length, ON_DEMAND, target.address)
    source.fill(1)
    write(a, source.sge(), target.remote()._replace(rkey=writable.rkey))
    successes(near.cq, 1)
    write(second, source.sge(), target.remote())
    assert outcome(second) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(1, target.length)
    writable.close()


def test_a_key_of_another_domain_reaches_no_page(near, far, side, caps):
    stranger = side()
    (a, _b), source, target = joined(near, far), near.region(PAGES), stranger.region(PAGES, odp=True)
    write(a, source.sge(), target.remote())
    assert outcome(a) == "REM_ACCESS_ERR"
    assert target.bytes() == bytes(target.length)


# -- keys and registration anew


def test_a_region_registered_again_has_the_memory_of_now(near, far, caps):
    ends = joined(near, far)
    source, target = on_demand(near, far, PAGES)
    for seed in range(1, 6):
        source.fill(seed)
        target.discard()
        target.mr.close()
        target.mr = MR(far.pd, target.length, ON_DEMAND, target.address)
        arrived("write", ends, source, target)
        assert target.bytes() == make_pattern(seed, target.length)


def test_rereg_takes_an_on_demand_region_to_other_memory(near, far, caps):
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES, odp=True)
    other = far.region(PAGES)
    source.fill(1)
    arrived("write", ends, source, target)
    with needs("registration anew of on-demand regions"):
        target.mr.rereg(REREG_MEMORY, addr=other.address, length=other.length)
    write(ends[0], source.sge(), Remote(other.address, target.rkey))
    successes(near.cq, 1)
    assert other.bytes() == make_pattern(1, other.length)


def test_rereg_takes_rights_from_an_on_demand_region(near, far, caps):
    ends = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES, odp=True)
    with needs("registration anew of on-demand regions"):
        target.mr.rereg(REREG_ACCESS, access=LOCAL | DEMAND)
    write(ends[0], source.sge(), target.remote())
    assert outcome(ends[0]) == "REM_ACCESS_ERR"
    assert target.bytes() == bytes(target.length)


def test_huge_pages_are_asked_for_by_name(near, caps):
    """IBV_ACCESS_HUGETLB over ordinary pages is refused."""
    region = near.region(512)
    with pytest.raises(PyverbsRDMAError) as refused:
        MR(near.pd, region.length, ON_DEMAND | e.IBV_ACCESS_HUGETLB, region.address)
    assert refused.value.error_code in (errno.EOPNOTSUPP, errno.EINVAL)
