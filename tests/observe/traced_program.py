"""A program whose trace has everything in it: page faults of each side, RNR waits, READs, atomics, memory that goes
away.

``python -m tests.observe.traced_program FILE`` runs it and writes its trace.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, madvise, mmap, munmap
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, ON_DEMAND, Ends

LENGTH, RNR_10_MS = 1 << 13, 20
MADV_DONTNEED = 4


def traced(path: Path, **overrides: object) -> None:
    """Run the program in a lab of its own."""
    session.reset()
    session.configure(load_config(None, {"trace": str(path), "seed": 3, **overrides}))
    ends = Ends()
    try:
        program(ends)
    finally:
        ends.ctx.close()
        session.reset()


def program(ends: Ends) -> None:
    """Messages over on-demand memory, with receives posted late."""
    address = mmap(length=2 * LENGTH, flags=MAP_ANONYMOUS_ | MAP_PRIVATE_)
    region = MR(ends.pd, 2 * LENGTH, ACCESS | ON_DEMAND, address=address)
    near, far = ends.pair(rnr_retry=7, retry_cnt=7, timeout=18, min_rnr_timer=RNR_10_MS)
    source, at = SGE(address, LENGTH, region.lkey), address + LENGTH - ends.target.buf
    ends.send(near, source, wr_id=1)  # nobody receives yet, and its pages are missing
    ends.near.poll(1)
    ends.recv(far, SGE(address + LENGTH, LENGTH, region.lkey))
    ends.post(near, e.IBV_WR_RDMA_WRITE, source, 2, rkey=region.rkey, at=at)
    ends.post(near, e.IBV_WR_RDMA_READ, source, 3, rkey=region.rkey, at=at)
    ends.post(near, e.IBV_WR_ATOMIC_FETCH_AND_ADD, SGE(address, 8, region.lkey), 4, rkey=region.rkey, at=at)
    assert [status for _, status in ends.statuses(ends.near)] == ["SUCCESS"] * 4
    madvise(address, 2 * LENGTH, MADV_DONTNEED)
    ends.post(near, e.IBV_WR_RDMA_WRITE, source, 5, rkey=region.rkey, at=at)
    assert ends.statuses(ends.near) == [(5, "SUCCESS")]
    region.close()
    munmap(address, 2 * LENGTH)


if __name__ == "__main__":
    traced(Path(sys.argv[1]))
