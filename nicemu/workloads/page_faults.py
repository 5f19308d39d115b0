"""Page faults of the NIC: one at a time, of several queue pairs at once, and of all classes of one queue pair."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench, End, Region

CLASSES = ("responder_rdma", "requester_send", "responder_recv", "requester_read")
"""By number of the fault's type."""


def send_gather_fault(bench: Bench, *, pages: int = 1, iterations: int = 100, qps: int = 1) -> Iterator[Row]:
    """SENDs whose gather lists lie in memory that the NIC has not: a requester fault for each.

    A fault is of ``pages`` pages, which the CPU has (a minor fault), and of each of ``qps`` queue pairs at once. A row
    for each:
    ``npf_ns`` is the page fault, from its detection to the transmission that goes on; ``detect_ns``, ``driver_ns``,
    ``update_ns``, ``resume_ns`` are its stages, ``rest_ns`` what they leave over; ``latency_ns`` is from the post of
    all to the last completion; ``faults``: how many there were of the round.
    """
    pairs = [bench.rc_pair(depth=4) for _ in range(qps)]
    regions = [(client.region(pages * PAGE), server.pinned(pages * PAGE)) for client, server in pairs]
    for _ in range(iterations):
        for source, _ in regions:
            source.drop()
            source.populate()
        bench.stages()
        posted = bench.now()
        for (client, server), (source, target) in zip(pairs, regions, strict=True):
            server.recv(target.sge())
            client.send(source.sge())
        for client, server in pairs:
            client.wait()
            server.wait()
        latency = bench.now() - posted
        faults, _ = bench.stages()
        for fault in faults:
            stages = {name: ns for name, ns in fault.items() if name.endswith("_ns") and name != "total_ns"}
            total = fault["total_ns"]
            rest = total - sum(stages.values())
            yield {"latency_ns": latency, "npf_ns": total, **stages, "rest_ns": rest, "faults": len(faults)}


def fault_classes(bench: Bench, *, iterations: int = 100) -> Iterator[Row]:
    """Faults of all four classes of one queue pair, posted at once.

    It READs and SENDs, a WRITE and a SEND come to it, each at a page of its own that the NIC has not. The time of each
    fault, of all four requests (``all_ns``), and how many faults were open together.
    """
    near, far = bench.rc_pair(depth=8)
    regions = {name: near.region(PAGE) for name in CLASSES}
    other = far.pinned(PAGE)
    for _ in range(iterations):
        for region in regions.values():
            region.drop()
            region.populate()
        far.recv(other.sge())
        near.recv(regions["responder_recv"].sge())
        bench.stages()
        posted = bench.now()
        near.read(other, regions["requester_read"].sge())
        near.send(regions["requester_send"].sge())
        far.write(regions["responder_rdma"], other.sge())
        far.send(other.sge())
        near.wait(3)
        far.wait(3)
        together = bench.now() - posted
        faults = sorted(bench.stages()[0], key=lambda fault: fault["mr"])  # in the order of CLASSES
        times = {f"{name}_ns": fault["total_ns"] for name, fault in zip(CLASSES, faults, strict=True)}
        yield {**times, "all_ns": together, "at_once": _at_once(faults)}


def _at_once(faults: list[dict[str, int]]) -> int:
    """The most faults that were open at one time."""
    starts = [fault["at"] for fault in faults]
    return max(sum(fault["at"] <= at < fault["at"] + fault["total_ns"] for fault in faults) for at in starts)


def fault_penalty(bench: Bench, *, cold: str = "remote", state: str = "minor", iterations: int = 100) -> Iterator[Row]:
    """A WRITE that faults, and the same again when it does not.

    The page that the NIC has not is at the ``cold`` end, local or remote; in ``state`` minor the CPU has it, in
    major it is on the swap device. ``extra_ns``: what the first one took more; ``mapped_ns``: the second one;
    ``pinned_ns``: with both ends pinned.
    """
    sender, receiver = bench.rc_pair(min_rnr_timer=1)
    pinned = sender.pinned(PAGE), receiver.pinned(PAGE)
    region = (sender if cold == "local" else receiver).region(PAGE)
    ends = (region, pinned[1]) if cold == "local" else (pinned[0], region)
    _write(bench, sender, *pinned)  # fills the IOTLBs
    for _ in range(iterations):
        region.populate()
        if state == "major":
            region.page_out()
        else:
            region.drop()
            region.populate()
        first, again = _write(bench, sender, *ends), _write(bench, sender, *ends)
        yield {"extra_ns": first - again, "mapped_ns": again, "pinned_ns": _write(bench, sender, *pinned)}


def _write(bench: Bench, sender: End, source: Region, target: Region) -> int:
    """How long a WRITE takes, post to completion."""
    posted = bench.now()
    sender.write(target, source.sge())
    sender.wait()
    return bench.now() - posted
