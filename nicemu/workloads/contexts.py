"""Small RDMA WRITEs over many queue pairs in turn: what their contexts cost."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import Bench
from nicemu.workloads.stream import grown, keep_posted


def writes_in_turn(bench: Bench, *, qps: int = 64, message_bytes: int = 64, messages: int = 8192,
                   depth: int = 64) -> Iterator[Row]:  # fmt: skip
    """Small WRITEs, each on the next one of ``qps`` queue pairs.

    From the first to the last NIC. Their rate, and the share of uses of a context at the sender that missed its cache.
    """
    pairs = [first := bench.rc_pair(depth=depth)]
    pairs += [bench.rc_pair(depth=16, beside=first) for _ in range(qps - 1)]
    source, target = first[0].pinned(message_bytes), first[1].pinned(message_bytes)

    def post(number: int) -> None:
        pairs[number % qps][0].write(target, source.sge())

    keep_posted(first[0], post, qps, depth)  # every context was used once
    before, start = bench.counters(), bench.now()
    keep_posted(first[0], post, messages, depth)
    rate = round(messages * 1000 / (bench.now() - start), 4)
    hits, misses = grown(bench, before, "nic0.qp_cache_hits", "nic0.qp_cache_misses").values()
    yield {"mwrites_per_s": rate, "miss_share": round(misses / max(hits + misses, 1), 4)}
