"""Several senders, one receiver: who gets how much of its link, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import Bench
from nicemu.workloads.stream import gbps


def incast(bench: Bench, *, message_bytes: int = 65536, messages: int = 120, timeout: int = 10) -> Iterator[Row]:
    """SENDs from all other NICs to NIC 0 at once.

    ``messages`` from each. A row for each sender: its goodput until it is done; ``late_share``: its part of what
    arrives in the second half of the time until the first of them is done; ``drops``, ``retransmits``: of the whole
    run.
    """
    pairs = [first := bench.rc_pair(1, 0, depth=messages, timeout=timeout)]
    others = range(2, len(bench.lab.devices))
    pairs += [bench.rc_pair(nic, 0, depth=messages, timeout=timeout, beside=(None, first[1])) for nic in others]
    target = first[1].pinned(message_bytes)
    sources = [sender.pinned(message_bytes) for sender, _ in pairs]
    before, start = bench.counters(), bench.now()
    for (sender, receiver), source in zip(pairs, sources, strict=True):
        for _ in range(messages):
            receiver.recv(target.sge())
            sender.send(source.sge())
    arrivals: dict[int, list[int]] = {receiver.qp.qp_num: [] for _, receiver in pairs}
    for done in first[1].completions(messages * len(pairs)):
        arrivals[done.qp_num].append(bench.now() - start)
    end = min(times[-1] for times in arrivals.values())
    late = [sum(end // 2 < time <= end for time in times) for times in arrivals.values()]
    for number, (times, count) in enumerate(zip(arrivals.values(), late, strict=True), 1):
        yield {"sender": number, "goodput_gbps": gbps(messages * message_bytes, times[-1]), "time_ns": times[-1],
               "late_share": round(count / max(sum(late), 1), 4), **_lost(bench, before)}  # fmt: skip


def _lost(bench: Bench, before: dict[str, int]) -> dict[str, int]:
    """What all links and senders together have lost and sent again."""
    more = {name: value - before.get(name, 0) for name, value in bench.counters().items()}
    return {"drops": sum(value for name, value in more.items() if name.endswith(".queue_drops")),
            "retransmits": sum(value for name, value in more.items() if name.endswith(".retransmits"))}  # fmt: skip
