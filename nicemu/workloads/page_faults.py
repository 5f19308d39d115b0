"""Page faults of the NIC: one at a time, of several queue pairs at once, and of all classes of one queue pair."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench

CLASSES = ("responder_rdma", "requester_send", "responder_recv", "requester_read")
"""By number of the fault's type."""


def send_gather_fault(bench: Bench, *, pages: int = 1, iterations: int = 100, qps: int = 1) -> Iterator[Row]:
    """SENDs whose gather lists lie in memory that is gone: a requester fault of ``pages`` pages of each of ``qps`` queue
    pairs at once. A row for each fault.

    ``npf_ns`` is the page fault, from its detection to the transmission that goes on; ``detect_ns``, ``driver_ns``,
    ``update_ns``, ``resume_ns`` are its stages, ``rest_ns`` what they leave over; ``latency_ns`` is from the post to the
    last completion.
    """
    pairs = [bench.rc_pair(depth=4) for _ in range(qps)]
    regions = [(client.region(pages * PAGE), server.pinned(pages * PAGE)) for client, server in pairs]
    for _ in range(iterations):
        for source, _ in regions:
            source.drop()
        bench.stages()
        posted = bench.now()
        for (client, server), (source, target) in zip(pairs, regions, strict=True):
            server.recv(target.sge())
            client.send(source.sge())
        for client, server in pairs:
            client.wait()
            server.wait()
        latency = bench.now() - posted
        for fault in bench.stages()[0]:
            total, faulted = fault.pop("total_ns"), fault.pop("pages")
            rest = total - sum(fault.values())
            yield {"latency_ns": latency, "npf_ns": total, **fault, "rest_ns": rest, "pages_faulted": faulted}


def fault_classes(bench: Bench, *, iterations: int = 100) -> Iterator[Row]:
    """All four classes of fault of one queue pair in one round: READ and SEND by it, and a WRITE and a SEND to it, each
    at a page of its own that is gone. A row for each fault, by its order of detection; ``at_ns``: its detection after
    the posts, ``done_ns``: of all four requests."""
    near, far = bench.rc_pair(depth=8, min_rnr_timer=8)
    regions = [near.region(PAGE) for _ in CLASSES]
    written, gathered, received, read = regions
    other = far.pinned(PAGE)
    for _ in range(iterations):
        for region in regions:
            region.drop()
        bench.lab.driver.stages.faults.clear()
        posted = bench.now()
        far.recv(other.sge())
        near.recv(received.sge())
        near.read(other, read.sge())
        near.send(gathered.sge())
        far.write(written, other.sge())
        far.send(other.sge())
        near.wait(3)
        far.wait(3)
        print(list(bench.lab.driver.stages.faults), bench.now() - posted)
        done = bench.now() - posted
        for fault in bench.stages()[0]:
            yield {"npf_ns": fault["total_ns"]}
