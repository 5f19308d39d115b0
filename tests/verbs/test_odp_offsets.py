"""On-demand memory at any offset and of any length. rxe is wrong unless each packet lies in a page from its start."""

from __future__ import annotations

import pytest
from pyverbs import enums as e
from pyverbs.mr import MR

from .memory import ALL, PAGE, make_pattern
from .odp import joined, outcome
from .sides import RC, atomic, pair, read, recv, refusal, send, write

PAGES = 4
CASES = {
    "into_the_middle_of_a_page": (0, 104, 200),
    "from_the_middle_of_a_page": (104, 0, 200),
    "both_in_the_middle": (104, 208, 200),
    "from_across_a_page_border": (PAGE - 56, 0, 112),
    "into_across_a_page_border": (0, PAGE - 56, 112),
    "pages_at_an_odd_offset": (0, 513, 2 * PAGE),
    "pages_from_an_odd_offset": (513, 0, 2 * PAGE),
}
ODD = (
    "recalled, IBA 10.6: a region is byte-granular, whatever its pages. rxe copies from and to the start of a page "
    "whatever the offset, and the same bytes again to the next page (rxe_odp_mr_copy), yet says SUCCESS"
)


def check(accept, now, before, sent, offset):
    """The message lies at `offset` and nothing else has changed."""
    right = before[:offset] + sent + before[offset + len(sent) :]
    accept("bytes", "right" if now == right else "wrong", spec="right", rxe={"right", "wrong"}, why=ODD)


@pytest.fixture
def memory(near, far):
    source, target = near.region(PAGES, odp=True), far.region(PAGES, odp=True)
    source.fill(1)
    target.fill(2)
    return joined(near, far), source, target


@pytest.mark.parametrize("op", ["send", "write", "read"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_messages_at_any_offset(memory, accept, op, case):
    (a, b), source, target = memory
    begin, place, length = case
    if op == "read":
        read(b, target.sge(place, length), source.remote(begin))
        assert outcome(b) == "SUCCESS"
    else:
        if op == "send":
            recv(b, target.sge(place))
            send(a, source.sge(begin, length))
            assert outcome(b) == "SUCCESS"
        else:
            write(a, source.sge(begin, length), target.remote(place))
        assert outcome(a) == "SUCCESS"
    sent = make_pattern(1, source.length)[begin : begin + length]
    check(accept, target.bytes(), make_pattern(2, target.length), sent, place)


def test_packets_smaller_than_a_page(near, far, accept):
    """The second packet of a page begins within it."""
    a, _b = pair(near, far, RC, path_mtu=e.IBV_MTU_1024)
    source, target = near.region(PAGES, odp=True), far.region(PAGES, odp=True)
    source.fill(1)
    target.fill(2)
    write(a, source.sge(0, 2 * PAGE), target.remote())
    assert outcome(a) == "SUCCESS"
    check(accept, target.bytes(), make_pattern(2, target.length), make_pattern(1, 2 * PAGE), 0)


def test_elements_within_pages(memory, accept):
    (a, _b), source, target = memory
    write(a, [source.sge(8, 24), source.sge(PAGE + 16, 40)], target.remote())
    assert outcome(a) == "SUCCESS"
    sent = make_pattern(1, source.length)
    check(accept, target.bytes(), make_pattern(2, target.length), sent[8:32] + sent[PAGE + 16 : PAGE + 56], 0)


def test_a_region_that_begins_within_a_page(near, far, accept):
    a, _b = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    mr = MR(far.pd, PAGE, ALL | e.IBV_ACCESS_ON_DEMAND, target.address + 512)
    source.fill(1)
    target.fill(2)
    write(a, source.sge(0, PAGE), target.remote(512)._replace(rkey=mr.rkey))
    assert outcome(a) == "SUCCESS"
    check(accept, target.bytes(), make_pattern(2, target.length), make_pattern(1, PAGE), 512)
    mr.close()


def test_a_region_that_begins_within_a_page_ends_where_it_says(near, far):
    a, _b = joined(near, far)
    source, target = near.region(PAGES), far.region(PAGES)
    mr = MR(far.pd, PAGE, ALL | e.IBV_ACCESS_ON_DEMAND, target.address + 512)
    target.fill(2)
    write(a, source.sge(0, PAGE + 1), target.remote(512)._replace(rkey=mr.rkey))
    assert outcome(a) == "REM_ACCESS_ERR"
    assert target.bytes() == make_pattern(2, target.length)
    mr.close()


@pytest.mark.parametrize("offset", range(8, 64, 8))
def test_atomics_have_any_aligned_offset(memory, offset):
    """rxe's atomics use the offset."""
    (a, _b), source, target = memory
    before = make_pattern(2, target.length)
    atomic(a, source.sge(0, 8), target.remote(offset), add=1)
    assert outcome(a) == "SUCCESS"
    after = (int.from_bytes(before[offset : offset + 8], "little") + 1).to_bytes(8, "little")
    assert target.bytes() == before[:offset] + after + before[offset + 8 :]
    assert source.bytes(0, 8) == before[offset : offset + 8]


def test_an_atomic_at_an_odd_offset_changes_nothing(memory, accept):
    (a, _b), source, target = memory
    said = refusal(atomic, a, source.sge(0, 8), target.remote(4), add=1)
    said = outcome(a) if said == "accepted" else f"{said} when posted"
    why = "recalled, IBA 9.4.5.1: the responder refuses it as an invalid request; rxe's library does not post it"
    accept("refusal", said, spec="REM_INV_REQ_ERR", rxe="EINVAL when posted", why=why)
    assert target.bytes() == make_pattern(2, target.length)
    assert source.bytes() == make_pattern(1, source.length)
