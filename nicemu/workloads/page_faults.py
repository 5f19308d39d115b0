"""Page faults of the NIC, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench


def send_gather_fault(bench: Bench, *, pages: int = 1, iterations: int = 100) -> Iterator[Row]:
    """A SEND whose gather list lies in memory that is gone: one requester fault of ``pages`` pages an iteration.

    ``npf_ns`` is the page fault, from its detection to the transmission that goes on; ``detect_ns``, ``driver_ns``,
    ``update_ns``, ``resume_ns`` are its stages, ``rest_ns`` what they leave over; ``latency_ns`` is post to completion.
    """
    client, server = bench.rc_pair()
    source, target = client.region(pages * PAGE), server.pinned(pages * PAGE)
    for _ in range(iterations):
        source.drop()
        bench.stages()
        server.recv(target.sge())
        posted = bench.now()
        client.send(source.sge())
        client.wait()
        latency = bench.now() - posted
        server.wait()
        (fault,), _ = bench.stages()
        total, faulted = fault.pop("total_ns"), fault.pop("pages")
        rest = total - sum(fault.values())
        yield {"latency_ns": latency, "npf_ns": total, **fault, "rest_ns": rest, "pages_faulted": faulted}
