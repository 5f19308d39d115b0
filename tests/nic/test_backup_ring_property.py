"""The backup ring under any order of sends, faults served and pages taken away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nic.backup_ends import GRH, Uc, Ud, cold, free_packets, in_ring, ring, ring_bench, serve

LENGTHS = st.integers(1, 3000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), LENGTHS),
        st.tuples(st.just("zap"), st.integers(0, 7)),
        st.tuples(st.just("serve"), st.integers(1, 3)),
        st.tuples(st.just("run"), st.integers(1, 200_000)),
    ),
    min_size=4,
    max_size=30,
)
SLOT = 4096


class Paging:
    """A receiver whose eight pages come by faults and go as the steps say."""

    def __init__(self, ends: Ud | Uc) -> None:
        self.ends, self.bench = ends, ends.bench
        self.region = cold(self.bench, 8)
        self.open: list[dict[str, int]] = []
        self.lengths: list[int] = []

    def send(self, length: int) -> None:
        number = len(self.lengths)
        self.lengths.append(length)
        self.ends.b.post_recv(number, self.region.sge(SLOT, (number % 8) * SLOT))
        self.ends.send(number, length, number)

    def zap(self, page: int) -> None:
        self.region.zap(page, 1)

    def run(self, ns: int) -> None:
        self.bench.run_for(ns)

    def serve(self, count: int) -> None:
        self.open += self.bench.faults()
        for fault in self.open[:count]:
            self.region.map((fault["va"] - self.region.va) // 4096, 1)
            self.bench.resume(fault["token"])
        del self.open[:count]

    def finish(self) -> None:
        """No page is taken away any more."""
        self.serve(len(self.open) + 8)
        serve(self.bench, self.region)


@pytest.mark.parametrize("kind", ["UD", "UC"])
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_nothing_is_lost_or_reordered_whatever_is_taken_away(kind, steps):
    bench = ring_bench()
    grh = GRH if kind == "UD" else 0
    paging = Paging(Ud(bench) if kind == "UD" else Uc(bench))
    for name, argument in steps:
        getattr(paging, name)(argument)
    paging.finish()
    found = [(c["wr_id"], c["status"], c["byte_len"]) for c in paging.ends.b.cq.poll()]
    assert found == [(n, 0, length + grh) for n, length in enumerate(paging.lengths)]
    for number in range(max(len(paging.lengths) - 8, 0), len(paging.lengths)):  # the last in each slot
        at, length = number % 8 * SLOT + grh, paging.lengths[number]
        assert paging.region.data[at : at + length] == paging.ends.local.data[number : number + length]
    assert ring(bench)["drops"] == ring(bench)["discards"] == 0 and free_packets(bench) == 0
    assert bench.world.control[0].violations == 0


@given(steps=STEPS, entries=st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_a_ring_too_small_loses_datagrams_and_reorders_none(steps, entries):
    bench = ring_bench(entries=entries)
    paging = Paging(Ud(bench))
    for name, argument in steps:
        getattr(paging, name)(argument)
        assert in_ring(bench) <= entries
    paging.finish()
    delivered = [c["byte_len"] - GRH for c in paging.ends.b.cq.poll()]
    left = iter(paging.lengths)
    assert all(length in left for length in delivered), "a subsequence of what was sent"
    counters = ring(bench)
    assert counters["discards"] == 0 and len(delivered) == len(paging.lengths) - counters["drops"]
    assert bench.world.control[0].violations == 0
