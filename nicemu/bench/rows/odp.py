"""On-demand paging: faults of the device, invalidations, and what the host's mm does with many pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicemu.bench import labs, limits
from nicemu.bench.measure import Batch, Case, Counts, Limit, Opener, Watch
from nicemu.mm.madvise import MADV_DONTNEED
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.wr import SendWR
from nicemu.workloads.bench import PAGE, Bench, Region, WorkloadError

PAGES, HOST_PAGES, REMOTE_BATCH, PAIRS = 512, 1 << 16, 8, 16
HOST = f"{HOST_PAGES:,} pages of simulated RAM; no device; us: of one call"
WRITE, READ = e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_READ
REMOTE = "where a page is missing at the responder all that is under way is sent again: 8 at a time"
MIN_RNR_TIMER = 6
"""0.08 ms: how long a requester waits for the other side's page."""


def cases() -> Iterator[Case]:
    """Device faults, invalidations, host."""
    present = Limit("the same with the page present", "pages/s", _round_trips(WRITE, present=True))
    python = limits.python_loop()
    carried = limits.bare(PAGE, unit="GB/s")
    for name, opener, note in (
        ("page faults, WRITE, local page", _round_trips(WRITE), "one page a request, each a fault of its own"),
        ("page faults, READ, local page", _round_trips(READ), "one page a request, each a fault of its own"),
        (f"page faults, WRITE, {PAIRS} QPs", _round_trips(WRITE, pairs=PAIRS), "their faults overlap"),
        ("page faults, WRITE, remote page", _round_trips(WRITE, remote=True), REMOTE),
    ):
        rest = ("us", "events/s")
        yield Case(name, "odp", "pages/s", opener, (python, present), rest, note, short="WRITE, local" in name)
    for name, opener, note in (
        ("page faults, many pages at once", _large, f"a WRITE of {PAGES} absent pages; us: of one fault"),
        ("invalidations, one page each", _invalidations(1), "madvise(MADV_DONTNEED) of a page that the device has"),
        ("invalidations, many pages at once", _invalidations(PAGES), f"{PAGES} pages; us: of one call"),
        ("host: populate", _host("populate"), HOST),
        ("host: zap, DONTNEED", _host("zap, DONTNEED"), HOST),
        ("host: zap, munmap", _host("zap, munmap"), HOST),
    ):
        of = (python,) if "one page" in name else (carried, limits.memcpy(PAGE))
        yield Case(name, "odp", "pages/s", opener, of, ("us",), note, short="many pages" in name)


def _drop(bench: Bench, region: Region, first: int = 0, pages: int = PAGES) -> None:
    """Take pages away. By the lab's own process: a limit's lab may be what programs see just now."""
    bench.lab.endpoint.process.madvise(region.address + first * PAGE, pages * PAGE, MADV_DONTNEED)


class Faulting:
    """Requests of 64 bytes, each at a page of its own: of ``absent``, which the device does not have after ``drop``, on
    this side or (``remote``) on the other; at the other side of each is one page that it has."""

    def __init__(self, bench: Bench, opcode: int, remote: bool = False, pairs: int = 1) -> None:
        self.bench = bench
        first = bench.rc_pair(depth=PAGES, min_rnr_timer=MIN_RNR_TIMER)
        others = [bench.rc_pair(depth=PAGES, min_rnr_timer=MIN_RNR_TIMER, beside=first) for _ in range(pairs - 1)]
        self.ends = [end for end, _ in (first, *others)]
        owner, peer = reversed(first) if remote else first
        self.absent, self.present = owner.region(PAGES * PAGE), peer.pinned(PAGE)
        size = REMOTE_BATCH if remote else PAGES // pairs
        self.chains = [self._chain(opcode, remote, range(at, at + size)) for at in range(0, PAGES, size)]

    def _chain(self, opcode: int, remote: bool, numbers: range) -> SendWR:
        """The last one is signalled."""
        chain = None
        for number in reversed(numbers):
            flags = e.IBV_SEND_SIGNALED if chain is None else 0
            here, there = (self.absent, number * PAGE), (self.present, 0)
            if remote:
                here, there = there, here
            sge = here[0].sge(64, here[1])
            wr = SendWR(wr_id=number, num_sge=1, sg=[sge], opcode=opcode, send_flags=flags, next_wr=chain)
            wr.set_wr_rdma(there[0].mr.rkey, there[0].address + there[1])
            chain = wr
        assert chain is not None
        return chain

    def run(self, watch: Watch) -> None:
        """Each request once, a chain of each QP at a time."""
        with watch:
            for at in range(0, len(self.chains), len(self.ends)):
                together = self.chains[at : at + len(self.ends)]
                for end, chain in zip(self.ends, together, strict=True):
                    end.qp.post_send(chain)
                self.ends[0].wait(len(together))

    def faults(self) -> int:
        """Page faults of both devices so far."""
        return sum(int(device.row.page_faults) for device in self.bench.lab.devices)


def _round_trips(opcode: int, *, remote: bool = False, pairs: int = 1, present: bool = False) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened() as bench:
            made = Faulting(bench, opcode, remote, pairs)

            def batch(watch: Watch) -> Counts:
                if not present:
                    _drop(bench, made.absent)
                before, ran = made.faults(), bench.events()
                made.run(watch)
                if not present and made.faults() - before != PAGES:
                    raise WorkloadError(f"{made.faults() - before} page faults at {PAGES} absent pages")
                return {"pages": PAGES, "calls": PAGES, "events": bench.events() - ran}

            yield batch

    return opener


@contextmanager
def _large() -> Iterator[Batch]:
    with labs.opened() as bench:
        a, b = bench.rc_pair(depth=16)
        source, target = a.region(PAGES * PAGE), b.pinned(PAGES * PAGE)

        def batch(watch: Watch) -> Counts:
            _drop(bench, source)
            device = bench.lab.devices[0].row
            before = int(device.page_faults)
            with watch:
                a.write(target, source.sge())
                a.wait()
            return {"pages": PAGES, "bytes": source.length, "calls": int(device.page_faults) - before}

        yield batch


def _invalidations(pages: int) -> Opener:
    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened() as bench:
            a, b = bench.rc_pair(depth=16)
            source, target = a.region(PAGES * PAGE), b.pinned(PAGES * PAGE)

            def batch(watch: Watch) -> Counts:
                a.write(target, source.sge())
                a.wait()
                with watch:
                    for at in range(0, PAGES, pages):
                        _drop(bench, source, at, pages)
                return {"pages": PAGES, "bytes": PAGES * PAGE, "calls": PAGES // pages}

            yield batch

    return opener


def _host(operation: str) -> Opener:
    """One of the mm's own ways through many pages, of simulated RAM."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened(memory="model", host={"ram_pages": 2 * HOST_PAGES}) as bench:
            process, timeline = bench.lab.endpoint.process, bench.lab.timeline
            length = HOST_PAGES * PAGE

            def batch(watch: Watch) -> Counts:
                address = process.mmap(length, memory="model")
                steps = {
                    "populate": lambda: process.model.mm.fault_in(address, HOST_PAGES, True),
                    "zap, DONTNEED": lambda: process.model.madvise(address, length, MADV_DONTNEED),
                    "zap, munmap": lambda: process.model.mm.munmap(address, length),
                }
                if operation != "populate":
                    timeline.call(steps["populate"](), "populate")
                with watch:
                    timeline.call(steps[operation](), operation)
                if operation != "zap, munmap":
                    process.munmap(address, length)
                return {"pages": HOST_PAGES, "bytes": length, "calls": 1}

            yield batch

    return opener
