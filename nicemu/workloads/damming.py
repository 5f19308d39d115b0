"""READs while a page fault is open: a second one of the same queue pair, and those of many queue pairs.

Fukuoka, Sato, Taura, "Pitfalls of InfiniBand with On-Demand Paging", ISPASS'21, calls the two pitfalls packet damming
and packet flood.
"""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench
from nicemu.workloads.stream import grown

APART_NS = 10_000_000
"""Between two rounds."""


def two_reads(bench: Bench, *, interval_us: int = 500, code: int = 14, timeout: int = 16,
              iterations: int = 5) -> Iterator[Row]:  # fmt: skip
    """Two READs of one queue pair, ``interval_us`` apart. The page of the first is gone at the responder, that of the
    second is there. Each one's time from its own post, and timeouts of the transport."""
    reader, owner = bench.rc_pair(min_rnr_timer=code, timeout=timeout)
    target, source = reader.pinned(2 * PAGE), owner.region(2 * PAGE)
    for page in (0, 1):
        reader.read(source, target.sge(PAGE), offset=page * PAGE)
        reader.wait()
    for _ in range(iterations):
        source.drop(PAGE)
        before, first = bench.counters(), bench.now()
        reader.read(source, target.sge(PAGE))
        bench.pause(interval_us * 1000)
        second = bench.now()
        reader.read(source, target.sge(PAGE, PAGE), offset=PAGE)
        reader.wait()
        first_ns = bench.now() - first
        reader.wait()
        yield {"first_ns": first_ns, "second_ns": bench.now() - second, **grown(bench, before, "timeouts")}
        bench.pause(APART_NS)


def flood(bench: Bench, *, qps: int = 8, timeout: int = 16) -> Iterator[Row]:
    """``qps`` queue pairs READ a page each into memory that is gone at the reader, all at once. When each is done, and
    READ requests sent for each one posted."""
    pairs = [first := bench.rc_pair(timeout=timeout, depth=max(qps, 16))]
    pairs += [bench.rc_pair(timeout=timeout, depth=16, beside=first) for _ in range(qps - 1)]
    targets = [reader.region(PAGE) for reader, _ in pairs]
    source = first[1].pinned(PAGE)
    before, posted = bench.counters(), bench.now()
    for (reader, _), target in zip(pairs, targets, strict=True):
        reader.read(source, target.sge())
    times = []
    for _ in pairs:
        first[0].wait()
        times.append(bench.now() - posted)
    resent = grown(bench, before, "retransmits", "timeouts")
    for time in times:
        yield {"done_ns": time, "requests_per_read": round(1 + resent["retransmits"] / qps, 3), "timeouts": resent["timeouts"]}
