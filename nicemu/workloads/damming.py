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


def two_reads(bench: Bench, *, interval_us: int = 500, code: int = 14, timeout: int = 12,
              iterations: int = 3) -> Iterator[Row]:  # fmt: skip
    """Two READs of one queue pair, ``interval_us`` apart, the first of a page that is gone at the responder.

    The page of the second is there. ``second_ns``: from the second's post until both are done; ``timeouts``: of the
    transport.
    """
    reader, owner = bench.rc_pair(min_rnr_timer=code, timeout=timeout)
    target, source = reader.pinned(2 * PAGE), owner.region(2 * PAGE)
    for page in (0, 1):
        reader.read(source, target.sge(PAGE), offset=page * PAGE)
        reader.wait()
    for _ in range(iterations):
        source.drop(PAGE)
        before = bench.counters()
        reader.read(source, target.sge(PAGE))
        bench.pause(interval_us * 1000)
        second = bench.now()
        reader.read(source, target.sge(PAGE, PAGE), offset=PAGE)
        reader.wait(2)
        yield {"second_ns": bench.now() - second, **grown(bench, before, "timeouts")}
        bench.pause(APART_NS)


def flood(bench: Bench, *, qps: int = 8, timeout: int = 16, rounds: int = 3) -> Iterator[Row]:
    """READs of many queue pairs at once, each into a page that the reader's device has not.

    A row for each READ: when it is done, and of its round: requests for each one posted, page faults and timeouts.
    """
    pairs = [first := bench.rc_pair(timeout=timeout, depth=16)]
    pairs += [bench.rc_pair(timeout=timeout, depth=16, beside=first) for _ in range(qps - 1)]
    targets = [reader.region(PAGE) for reader, _ in pairs]
    source = first[1].pinned(PAGE)
    for _ in range(rounds):
        for target in targets:
            target.drop()
        before, posted = bench.counters(), bench.now()
        for (reader, _), target in zip(pairs, targets, strict=True):
            reader.read(source, target.sge())
        times = [bench.now() - posted for _ in first[0].completions(qps)]
        more = grown(bench, before, "retransmits", "page_faults", "timeouts")
        each = {"requests_per_read": round(1 + more["retransmits"] / qps, 3), "faults": more["page_faults"]}
        for time in times:
            yield {"done_ns": time, **each, "timeouts": more["timeouts"]}
        bench.pause(APART_NS)
