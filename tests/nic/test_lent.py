"""Payload that is lent: bytes are copied once, and nobody can tell."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicemu.tables.records import FrameKind
from nicemu.tables.trace import Ev
from tests.nic.conftest import connected
from tests.nic.testbench import Bench, WrOpcode

PAGES = 3
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from((WrOpcode.RDMA_WRITE, WrOpcode.RDMA_READ, WrOpcode.ATOMIC_FETCH_AND_ADD)),
        st.booleans(), st.booleans(), st.booleans(),
        st.integers(0, PAGES * 4096 - 1), st.integers(1, 9000), st.integers(0, PAGES * 4096 - 1),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def lends(bench: Bench, yes: bool) -> None:
    """Payload is lent, or not: as if there were an impairment somewhere."""
    bench.world.fabric[0].impairments = 0 if yes else 1


def departed(bench: Bench) -> None:
    """Run until a packet has left."""
    bench.log()
    bench.step_until(lambda: any(kind == Ev.SEND for kind, *_ in bench.trace()))


def outcome(requests, lend: bool):
    """Completions, memory, time and events of requests from either side, between any two of two regions."""
    bench = Bench()
    rc = connected(bench, pages=PAGES)
    lends(bench, lend)
    for number, (opcode, by_a, near, far, offset, length, at) in enumerate(requests):
        here, there = (rc.local, rc.remote)[near], (rc.local, rc.remote)[far]
        if opcode == WrOpcode.ATOMIC_FETCH_AND_ADD:
            length, at = 8, at & ~7
        length = min(length, PAGES * 4096 - max(offset, at))
        asker = rc.a if by_a else rc.b
        asker.post_send(
            number, opcode, here.sge(length, offset), remote=there.va + at, rkey=there.key, compare=number + 1
        )
    bench.run()
    return (
        rc.a.statuses(), rc.b.statuses(), bytes(rc.local.data), bytes(rc.remote.data), bench.world.now,
        int(bench.world.control[0].ran),
    )  # fmt: skip


@given(REQUESTS)
@settings(max_examples=100, deadline=None)
def test_memory_is_as_if_every_packet_had_its_bytes(requests):
    """Overlapping, onto themselves, in a circle: both ways, and against a device that does not lend."""
    assert outcome(requests, True) == outcome(requests, False)


@pytest.mark.parametrize("lend", [True, False])
def test_the_program_writes_behind_a_packet_that_left(bench, lend):
    rc = connected(bench)
    lends(bench, lend)
    before = rc.local.data[:1024]
    rc.write(1, 1024)
    departed(bench)
    rc.local.fill(7)
    bench.run()
    assert rc.a.statuses() == [(1, 0)] and rc.remote.data[:1024] == before


def test_a_page_that_is_written_is_kept_before(bench):
    """Both directions at once over the same two pages: each side sends what it had."""
    rc = connected(bench)
    mine, yours = rc.local.data[:4096], rc.remote.data[:4096]
    rc.write(1, 4096)
    rc.b.post_send(2, WrOpcode.RDMA_WRITE, rc.remote.sge(4096), remote=rc.local.va, rkey=rc.local.key)
    bench.run()
    assert rc.remote.data[:4096] == mine and rc.local.data[:4096] == yours


def test_nothing_is_lent_while_the_program_runs(bench):
    rc = connected(bench)
    rc.write(1, 3 * 4096)
    rc.read(2, 4096, 12000, 8000)
    while bench.engine_step():
        assert bench.world.control[0].lent_chain == 0
        assert not bench.world.frame.lent[:64].any() and not bench.world.packet.lent[:64].any()
    assert rc.a.statuses() == [(1, 0), (2, 0)]
    assert not bench.world.packet.chained[:64].any()


def test_a_page_lends_to_so_many_packets_only(bench):
    """255 borrow of it already: the next one has bytes of its own."""
    rc = connected(bench)
    mine, frame = rc.local.data[:1024], bench.world.frame[rc.local.frames[0]]
    frame.lent = 255
    rc.b.post_send(2, WrOpcode.RDMA_WRITE, rc.remote.sge(1024), remote=rc.local.va, rkey=rc.local.key)
    rc.write(1, 1024)
    bench.run()
    assert rc.remote.data[:1024] == mine and frame.lent == 255


def test_a_page_of_the_program_is_not_lent(bench):
    """It may be mapped twice: what is written into one frame then changes the other."""
    rc = connected(bench)
    mine, frames = rc.local.data[:1024], [bench.world.frame[number] for number in rc.local.frames[:2]]
    frames[1].pointer = frames[0].pointer
    frames[0].kind = frames[1].kind = FrameKind.PROGRAM
    rc.b.post_send(2, WrOpcode.RDMA_WRITE, rc.remote.sge(1024), remote=rc.local.va + 4096, rkey=rc.local.key)
    rc.write(1, 1024)
    bench.run()
    frames[0].kind = frames[1].kind = FrameKind.MODEL
    assert rc.remote.data[:1024] == mine and rc.local.data[:1024] != mine


def test_what_is_captured_is_not_lent(bench):
    rc = connected(bench)
    bench.world.control[0].capture = 1
    rc.write(1, 1024)
    bench.run()
    assert rc.remote.data[:1024] == rc.local.data[:1024] and not bench.world.packet.lent_at.any()
