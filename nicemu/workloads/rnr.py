"""RDMA WRITEs into memory that the responder has to fault in: RNR NAKs, and the time they cost."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.pyverbs import enums as e
from nicemu.workloads import Row
from nicemu.workloads.bench import PAGE, Bench, WorkloadError, status_name
from nicemu.workloads.stream import grown

SETTLED_NS = 2_000_000
"""After this a fault is over, whatever became of the request."""


def write_fault(bench: Bench, *, code: int = 12, rnr_retry: int = 7, iterations: int = 20) -> Iterator[Row]:
    """A WRITE into a page that the responder's NIC has not, by its RNR timer ``code``.

    Each time with new queue pairs. ``total_ns``: post to completion. ``npf_ns``: of the fault. ``mapped_ns``: until
    the device had the page. ``naks``: RNR NAKs it took. ``failed``: 1 if it ended in RNR_RETRY_EXC_ERR.
    """
    for _ in range(iterations):
        sender, receiver = bench.rc_pair(depth=4, min_rnr_timer=code, rnr_retry=rnr_retry)
        source, target = sender.pinned(PAGE), receiver.region(PAGE)
        target.populate()
        before, posted = bench.counters(), bench.now()
        sender.write(target, source.sge())
        (done,) = sender.completions()
        total = bench.now() - posted
        if done.status not in (e.IBV_WC_SUCCESS, e.IBV_WC_RNR_RETRY_EXC_ERR):
            raise WorkloadError(f"request failed: {status_name(done)}")
        bench.pause(SETTLED_NS)
        (fault,), _ = bench.stages()
        yield {"total_ns": total, "npf_ns": fault["total_ns"], "mapped_ns": fault["total_ns"] - fault["resume_ns"],
               "naks": grown(bench, before, "rnr_naks_sent")["rnr_naks_sent"],
               "failed": int(done.status != e.IBV_WC_SUCCESS)}  # fmt: skip
