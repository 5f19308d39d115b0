"""Streams of requests with a bounded number of them under way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import Bench, End

MTU = 4096
PARTS = 4


def keep_posted(end: End, post: Callable[[int], None], count: int, depth: int) -> None:
    """``post(0)`` to ``post(count - 1)``, whose requests complete at ``end``, at most ``depth`` at a time."""
    posted = min(count, depth)
    for number in range(posted):
        post(number)
    for _ in range(count):
        end.wait()
        if posted < count:
            post(posted)
            posted += 1


def gbps(length: int, ns: int) -> float:
    """``length`` bytes in ``ns``."""
    return round(length * 8 / max(ns, 1), 4)


def grown(bench: Bench, before: dict[str, int], *names: str) -> dict[str, int]:
    """How much counters have grown, by the last words of their names; those without a dot are of all NICs together."""
    now = bench.counters()
    for name in [name for name in names if "." not in name]:
        for counters in (before, now):
            counters[name] = sum(value for key, value in counters.items() if re.fullmatch(rf"nic\d+\.{name}", key))
    return {name.rpartition(".")[2]: now.get(name, 0) - before.get(name, 0) for name in names}


def stream_writes(bench: Bench, *, message_bytes: int = 65536, messages: int = 800, depth: int = 16,
                  timeout: int = 8) -> Iterator[Row]:  # fmt: skip
    """RDMA WRITEs from the first to the last NIC, both ends pinned.

    A row for each quarter of them: goodput, and request packets for each one that would do on a link without loss.
    """
    sender, receiver = bench.rc_pair(timeout=timeout, depth=depth)
    source, target = sender.pinned(message_bytes), receiver.pinned(message_bytes)
    share = messages // PARTS
    needed = share * -(-message_bytes // MTU)
    for part in range(PARTS):
        before, start = bench.counters(), bench.now()
        keep_posted(sender, lambda _: sender.write(target, source.sge()), share, depth)
        time = bench.now() - start
        packets, timeouts = grown(bench, before, "nic0.packets_sent", "timeouts").values()
        yield {"part": part, "goodput_gbps": gbps(share * message_bytes, time), "packets": packets,
               "packets_per_needed": round(packets / needed, 4), "timeouts": timeouts}  # fmt: skip
