"""One region of 4 GiB on a host with 256 MiB of RAM: on demand it works, pinned it cannot. Every byte is checked.

    nicemu run --config four_gib examples/four_gib_odp.py [--mebibytes N] [--random-bytes]

RDMA WRITE fills the region, random READs and WRITEs jump about in it, READs stay in a working set that grows past the
RAM, and RDMA READ fetches all of it again. Then the same with pinned memory: RLIMIT_MEMLOCK refuses; without the limit,
reclaim gives what it can, the OOM killer reports, registration fails and gives every pin back. A region that fits the
RAM is pinned for comparison. The table at the end says what each costs, in virtual time.

The verbs are plain pyverbs. The figures, and the limit, come from the emulator behind them (``nicemu.uverbs.session``).
Pages hold 512 words that grow by a step of their own, which the model's swap keeps short: a run takes well below
1.5 GiB of real memory. With --random-bytes they do not, and it takes what the region has.
"""

import argparse
import errno
import random
import time

import numpy as np
import pyverbs.enums as e
from bigger_than_ram import MIB, REMOTE, connected
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, mmap, munmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.wr import SGE, SendWR

from nicemu.uverbs import session

PAGE = 4096
WRITE, READ = e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ
SMALL = 64 << 10
"""Bytes of a random operation."""
TIMES = 1024
RNR_TIMER = 10
"""0.32 ms: what a fault of a small operation takes; one that has to evict a mebibyte first takes a few of them."""
COLUMNS = ("what", "MiB", "ms/MiB", "p50 us", "p99 us", "faults", "evicted", "swapped in", "swapped out", "pinned")


class Contents:
    """What each page should hold: its generation decides."""

    def __init__(self, pages, random_bytes):
        self.generation = np.zeros(pages, np.uint64)
        self.random_bytes = random_bytes
        self._count = np.arange(PAGE // 8, dtype=np.uint64)

    def expected(self, first, pages):
        """The bytes of some pages."""
        generation = self.generation[first : first + pages]
        number = np.arange(first, first + pages, dtype=np.uint64) * np.uint64(64) + generation
        if self.random_bytes:
            return b"".join(np.random.Generator(np.random.SFC64(int(seed))).bytes(PAGE) for seed in number)
        start, step = number * np.uint64(0x9E3779B97F4A7C15), number * np.uint64(0xD6E8FEB86659FD93) | np.uint64(1)
        return (start[:, None] + step[:, None] * self._count).tobytes()

    def change(self, first, pages):
        """They get new bytes."""
        self.generation[first : first + pages] += np.uint64(1)
        return self.expected(first, pages)


class Meter:
    """Rows of the table: what happened on the host between two looks."""

    def __init__(self):
        self.rows = []

    def counts(self):
        """Virtual time, faulted pages, evictions, swap reads and writes."""
        lab = session.current()
        counters = lab.host.counters
        faults = sum(dict(mr.items())["page_faults"] for mr in lab.driver.mr_counters.values())
        evicted = counters["pgsteal_direct"] + counters["pgsteal_kswapd"]
        return np.array([lab.world.now, faults, evicted, counters["pswpin"], counters["pswpout"]])

    def measure(self, what, mebibytes, run):
        """A row for ``run()``, which gives the latencies of its operations."""
        before, began = self.counts(), time.monotonic()
        latencies = run()
        ns, *rest = (self.counts() - before).tolist()
        p50, p99 = (f"{value / 1000:.1f}" for value in np.percentile(latencies, (50, 99)))
        self.rows.append((what, f"{mebibytes:.0f}", f"{ns / 1e6 / mebibytes:.3f}", p50, p99, *map(str, rest),
                          str(pinned_pages())))  # fmt: skip
        print(f"{what}: {mebibytes:.0f} MiB in {ns / 1e9:.2f} s of virtual time, "
              f"{time.monotonic() - began:.0f} s of ours", flush=True)  # fmt: skip

    def print(self):
        """The table."""
        table = [COLUMNS, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
        for row in table:
            print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                            for i, (cell, width) in enumerate(zip(row, widths, strict=True))))  # fmt: skip


def ram_mebibytes():
    """RAM of the host."""
    return session.current().config.host.ram_pages * PAGE // MIB


def pinned_pages():
    """Pages that are pinned now, as the frame table has it."""
    return int(np.count_nonzero(session.current().host.pages.all_pins))


class Worker:
    """Moves bytes between a buffer and a region, and knows what should be there."""

    def __init__(self, pd, cq, qp):
        self.pd, self.cq, self.qp = pd, cq, qp
        self.buffer = mmap(length=MIB, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
        self.local = MR(pd, MIB, e.IBV_ACCESS_LOCAL_WRITE, address=self.buffer)

    def transfer(self, opcode, mr, offset, length):
        """One operation; its latency in virtual ns."""
        wr = SendWR(num_sge=1, sg=[SGE(self.buffer, length, self.local.lkey)], opcode=opcode)
        wr.set_wr_rdma(mr.rkey, self.region + offset)
        began = session.current().world.now
        self.qp.post_send(wr)
        while True:
            count, completions = self.cq.poll()
            if count:
                assert completions[0].status == e.IBV_WC_SUCCESS, f"opcode {opcode}: status {completions[0].status}"
                return session.current().world.now - began

    def put(self, mr, offset, length):
        """New bytes by RDMA WRITE."""
        write(self.buffer, self.contents.change(offset // PAGE, length // PAGE), length)
        return self.transfer(WRITE, mr, offset, length)

    def get(self, mr, offset, length):
        """RDMA READ; every byte is checked."""
        latency = self.transfer(READ, mr, offset, length)
        assert read(self.buffer, length) == self.contents.expected(offset // PAGE, length // PAGE), f"at {offset}"
        return latency

    def sequential(self, operation, mr, mebibytes, say=""):
        """Every mebibyte in order."""
        latencies = []
        for block in range(mebibytes):
            latencies.append(operation(mr, block * MIB, MIB))
            if say and (block + 1) % 512 == 0:
                print(f"  {say} {block + 1} of {mebibytes} MiB", flush=True)
        return latencies

    def jump(self, mr, mebibytes, times, writes):
        """``times`` operations at random places of the first ``mebibytes``."""
        draw = random.Random(mebibytes)
        latencies = []
        for _ in range(times):
            offset = draw.randrange(mebibytes * MIB // SMALL) * SMALL
            latencies.append((self.put if writes and draw.random() < 0.5 else self.get)(mr, offset, SMALL))
        return latencies


def refused(what, pd, length, address):
    """Pin memory and be refused; says why, and that no pin is left."""
    before = pinned_pages()
    try:
        MR(pd, length, REMOTE, address=address)
    except PyverbsRDMAError as error:
        assert error.error_code == errno.ENOMEM, error
        reason = error.__cause__
    else:
        raise AssertionError(f"{what}: {length} bytes were pinned")
    assert pinned_pages() == before, f"{pinned_pages() - before} pages stay pinned"
    print(f"{what}: {reason}; pinned pages before {before}, after {pinned_pages()}", flush=True)


def on_demand(worker, meter, mebibytes):
    """The promise: all of it is registered, a part of it is in RAM."""
    mr = MR(worker.pd, mebibytes * MIB, REMOTE | e.IBV_ACCESS_ON_DEMAND, address=worker.region)
    meter.measure("on demand, write in order", mebibytes, lambda: worker.sequential(worker.put, mr, mebibytes, "WRITE"))
    jumps = lambda: worker.jump(mr, mebibytes, TIMES, True)  # noqa: E731
    meter.measure("on demand, read and write at random", TIMES * SMALL / MIB, jumps)
    for eighths in (4, 6, 8, 12):
        part = ram_mebibytes() * eighths // 8
        if part <= mebibytes:
            worker.sequential(worker.get, mr, part)
            meter.measure(f"on demand, read within {part} MiB", TIMES * SMALL / MIB,
                          lambda part=part: worker.jump(mr, part, TIMES, False))  # fmt: skip
    again = lambda: worker.sequential(worker.get, mr, mebibytes, "READ")  # noqa: E731
    meter.measure("on demand, read all in order", mebibytes, again)
    mr.close()


def pinned(worker, meter, mebibytes):
    """The same, pinned: refused, refused, and what fits."""
    refused(f"pinned {mebibytes} MiB", worker.pd, mebibytes * MIB, worker.region)
    session.endpoint().process.setrlimit_memlock(None)
    print("RLIMIT_MEMLOCK lifted")
    refused(f"pinned {mebibytes} MiB", worker.pd, mebibytes * MIB, worker.region)
    fits = ram_mebibytes() // 2
    mrs = []

    def register():
        began = session.current().world.now
        mrs.append(MR(worker.pd, fits * MIB, REMOTE, address=worker.region))
        return [session.current().world.now - began]

    meter.measure("pinned, register", fits, register)
    meter.measure("pinned, write in order", fits, lambda: worker.sequential(worker.put, mrs[0], fits))
    jumps = lambda: worker.jump(mrs[0], fits, TIMES, True)  # noqa: E731
    meter.measure("pinned, read and write at random", TIMES * SMALL / MIB, jumps)
    meter.measure("pinned, read all in order", fits, lambda: worker.sequential(worker.get, mrs[0], fits))
    mrs[0].close()
    assert pinned_pages() == MIB // PAGE, "the buffer's pages alone are pinned"


def main():
    options = argparse.ArgumentParser(description="a region larger than RAM, on demand and pinned")
    options.add_argument("--mebibytes", type=int, default=4096, help="size of the region (4096)")
    options.add_argument("--random-bytes", action="store_true", help="contents that swap cannot keep short")
    given = options.parse_args()
    ctx = Context(name=get_device_list()[0].name.decode())
    pd, cq = PD(ctx), CQ(ctx, 64)
    qp, _peer = connected(ctx, pd, cq, RNR_TIMER)
    worker, meter = Worker(pd, cq, qp), Meter()
    worker.contents = Contents(given.mebibytes * MIB // PAGE, given.random_bytes)
    worker.region = mmap(length=given.mebibytes * MIB, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
    on_demand(worker, meter, given.mebibytes)
    pinned(worker, meter, given.mebibytes)
    munmap(worker.region, given.mebibytes * MIB)
    meter.print()
    print("every byte right")


if __name__ == "__main__":
    main()
