#!/usr/bin/env python3
"""What the host costs in wall time: pages populated and zapped a second, and device page faults a second.

  tools/bench_mm.py                  a table, the median and the best of five runs each
  tools/bench_mm.py --json           the same as JSON
  tools/bench_mm.py --only WRITE     only the rows whose name contains "WRITE"
  tools/bench_mm.py --cpu            a second of CPU time instead of wall time, where other processes are busy

``populate``: ``mm.fault_in`` for write of absent model pages. ``zap``: ``madvise(MADV_DONTNEED)`` of them; ``munmap``
likewise. Round trips: 64-byte RDMA operations, each on a page of its own that the device does not have, so each takes
one page fault through NIC, interrupt, driver, mm, MTT update and resume. Posting and polling are inside the time,
making the work requests is not. With several QPs their faults overlap, and interrupts and workers are shared. The last
row says how fast this machine runs Python just now: rates of two machines, or moments, compare as multiples of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nicemu import lab as labs
from nicemu.config import Config
from nicemu.config.host_profile import HostProfile
from nicemu.mm.madvise import MADV_DONTNEED
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.wr import SGE, SendWR
from nicemu.uverbs import session

PAGE, DONTNEED = 4096, 4
CLOCK = [time.perf_counter]
REMOTE = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
PAIRS = 16
BATCH, SHORT_BATCH = 512, 8
"""Operations posted at once; where a missing page sends back all that are under way (RNR NAK, go-back-N)."""


@dataclass(frozen=True)
class Rate:
    """One row: how many a second, of each run."""

    name: str
    unit: str
    runs: list[float]

    @property
    def median(self) -> float:
        """Of the runs."""
        return statistics.median(self.runs)


class Bench:
    """A lab with simulated RAM for ``pages`` pages and some more."""

    def __init__(self, pages: int) -> None:
        ram = pages + pages // 8 + 4096
        self.lab = labs.open(Config(host=HostProfile(ram_pages=ram), memory="model"))
        session.install(self.lab.endpoint, self.lab)
        self.process, self.pages = self.lab.endpoint.process, pages

    def close(self) -> None:
        """Give the memory back."""
        session.reset()

    def timed(self, steps: Any, name: str) -> float:
        """Wall seconds of a host thread."""
        started = CLOCK[0]()
        self.lab.timeline.call(steps, name)
        return CLOCK[0]() - started


def memory_rates(pages: int, runs: int) -> Iterator[Rate]:
    """Populate, zap and munmap of ``pages`` model pages."""
    bench = Bench(pages)
    process, rates = bench.process.model, {name: [] for name in ("populate, write", "zap, DONTNEED", "zap, munmap")}
    for run in range(2 * runs):
        address = bench.process.mmap(pages * PAGE, memory="model")
        seconds = bench.timed(process.mm.fault_in(address, pages, True), "populate")
        rates["populate, write"].append(pages / seconds)
        if run % 2:
            dontneed = process.madvise(address, pages * PAGE, MADV_DONTNEED)
            rates["zap, DONTNEED"].append(pages / bench.timed(dontneed, "dontneed"))
            bench.process.munmap(address, pages * PAGE)
        else:
            rates["zap, munmap"].append(pages / bench.timed(process.mm.munmap(address, pages * PAGE), "munmap"))
    bench.close()
    for name, found in rates.items():
        yield Rate(name, "pages/s", found)


class Traffic:
    """Two connected QPs of one NIC, pages that the device does not have, and pages that it has."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ctx = bench, Context(name="nicemu0")
        self.pd, self.cq = PD(self.ctx), CQ(self.ctx, 2 * BATCH)
        length = bench.pages * PAGE
        self.absent = bench.process.mmap(length, memory="model")
        self.present = bench.process.mmap(PAGE, memory="model")
        self.odp = MR(self.pd, length, REMOTE | e.IBV_ACCESS_ON_DEMAND, address=self.absent)
        self.pinned = MR(self.pd, PAGE, REMOTE, address=self.present)
        cap = QPCap(max_send_wr=BATCH, max_recv_wr=1, max_send_sge=1, max_recv_sge=1)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap, sq_sig_all=0)
        self.route = GlobalRoute(dgid=self.ctx.query_gid(1, 1), sgid_index=1)
        self.pairs = [(QP(self.pd, init), QP(self.pd, init)) for _ in range(PAIRS)]
        for pair in self.pairs:
            self._connect(*pair)
            self._connect(*reversed(pair))

    def _connect(self, qp: QP, peer: QP) -> None:
        attr = QPAttr(port_num=1, path_mtu=e.IBV_MTU_4096)
        attr.qp_access_flags, attr.dest_qp_num, attr.max_rd_atomic = REMOTE, peer.qp_num, 8
        attr.max_dest_rd_atomic, attr.min_rnr_timer, attr.rnr_retry = 8, 6, 7
        attr.retry_cnt, attr.timeout = 7, 20
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=self.route, dlid=0)
        qp.to_rts(attr)

    def drop(self) -> None:
        """The host takes the pages away: the device has none of them."""
        self.bench.process.madvise(self.absent, self.bench.pages * PAGE, DONTNEED)

    def run(self, opcode: int, remote: bool, pairs: int = 1) -> float:
        """Wall seconds of one operation on each absent page, by so many QPs in turn."""
        batch = SHORT_BATCH if remote else BATCH // pairs
        chains = [self._chain(opcode, remote, range(first, min(first + batch, self.bench.pages)))
                  for first in range(0, self.bench.pages, batch)]  # fmt: skip
        started = CLOCK[0]()
        for first in range(0, len(chains), pairs):
            together = chains[first : first + pairs]
            for (qp, _), chain in zip(self.pairs, together, strict=False):
                qp.post_send(chain)
            self._wait(len(together))
        return CLOCK[0]() - started

    def _chain(self, opcode: int, remote: bool, numbers: range) -> SendWR:
        chain = None
        for number in reversed(numbers):
            here, there = (self.present, self.pinned), (self.absent + number * PAGE, self.odp)
            if not remote:
                here, there = there, here
            flags = e.IBV_SEND_SIGNALED if number == numbers[-1] else 0
            sge = SGE(here[0], 64, here[1].lkey)
            wr = SendWR(wr_id=number, num_sge=1, sg=[sge], opcode=opcode, send_flags=flags, next_wr=chain)
            wr.set_wr_rdma(there[1].rkey, there[0])
            chain = wr
        return chain

    def _wait(self, wanted: int) -> None:
        while wanted:
            count, completions = self.cq.poll(wanted)
            assert all(wc.status == e.IBV_WC_SUCCESS for wc in completions), [wc.status for wc in completions]
            wanted -= count


ROUND_TRIPS = (
    ("round trip, WRITE, local page", e.IBV_WR_RDMA_WRITE, False, 1),
    ("round trip, WRITE, 16 QPs", e.IBV_WR_RDMA_WRITE, False, PAIRS),
    ("round trip, READ, local page", e.IBV_WR_RDMA_READ, False, 1),
    ("round trip, WRITE, remote page", e.IBV_WR_RDMA_WRITE, True, 1),
)


def python_rate(runs: int) -> Rate:
    """Calls of an empty function."""

    def nothing() -> None:
        pass

    rates = []
    for _ in range(runs):
        started = CLOCK[0]()
        for _ in range(1_000_000):
            nothing()
        rates.append(1_000_000 / (CLOCK[0]() - started))
    return Rate("empty Python calls", "calls/s", rates)


def fault_rates(faults: int, runs: int, wanted: Callable[[str], bool]) -> Iterator[Rate]:
    """Page faults a second, by who meets the absent page."""
    bench = Bench(faults)
    traffic, device = Traffic(bench), bench.lab.devices[0]
    for name, opcode, remote, pairs in ROUND_TRIPS:
        if not wanted(name):
            continue
        rates = []
        for _ in range(runs):
            traffic.drop()
            before = int(device.row.page_faults)
            seconds = traffic.run(opcode, remote, pairs)
            met = int(device.row.page_faults) - before
            assert met == faults, f"{name}: {met} page faults of {faults} operations"
            rates.append(met / seconds)
        yield Rate(name, "faults/s", rates)
    bench.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1 << 20, help="pages populated and zapped (default 1 M)")
    parser.add_argument("--faults", type=int, default=1 << 13, help="page faults of a run (default 8192)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names of the rows wanted")
    parser.add_argument("--cpu", action="store_true", help="measure CPU time")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.cpu:
        CLOCK[0] = time.process_time
    rates: list[Rate] = []
    if any(options.only in name for name in ("populate, write", "zap, DONTNEED", "zap, munmap")):
        rates += memory_rates(options.pages, options.runs)
    if any(options.only in name for name, *_ in ROUND_TRIPS):
        rates += fault_rates(options.faults, options.runs, lambda name: options.only in name)
    rates.append(python_rate(options.runs))
    if options.json:
        print(json.dumps([{"name": r.name, "unit": r.unit, "median": r.median, "runs": r.runs} for r in rates]))
        return
    print(f"{'':32} {'median':>12} {'best':>12}")
    for rate in rates:
        print(f"{rate.name:32} {rate.median:>12,.0f} {max(rate.runs):>12,.0f} {rate.unit}")


if __name__ == "__main__":
    main()
