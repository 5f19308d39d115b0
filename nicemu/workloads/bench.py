"""What a workload stands on: the lab of its run, opened devices, connected queue pairs, memory that can be taken away.

Times are virtual nanoseconds. A queue pair has one CQ for sends and receives; whoever posts waits for what completes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from nicemu.observe import stages
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.mem_alloc import madvise, mmap, munmap, read, write
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR

if TYPE_CHECKING:
    from nicemu.lab.lab import Lab

PAGE = 4096
PORT, GID_INDEX, QKEY = 1, 1, 0x11111111
MADV_DONTNEED, MADV_PAGEOUT, MADV_POPULATE_WRITE = 4, 21, 23
ACCESS = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
          | e.IBV_ACCESS_REMOTE_ATOMIC)  # fmt: skip
T = TypeVar("T")
CQ_ENTRIES = 16384
"""More than any workload has outstanding."""
PATIENCE_NS = 100_000_000_000
"""Virtual time after which a completion is not waited for any longer."""
RC_ATTRIBUTES = {"path_mtu": e.IBV_MTU_4096, "max_rd_atomic": 16, "max_dest_rd_atomic": 16, "min_rnr_timer": 12,
                 "rnr_retry": 7, "retry_cnt": 7, "timeout": 14}  # fmt: skip


class WorkloadError(Exception):
    """A workload saw what it cannot go on with."""


class Region:
    """Memory of its own and the MR over it."""

    def __init__(self, end: End, length: int, *, on_demand: bool = True, flags: int = 0x22) -> None:
        self.length = length
        self.address = mmap(length=length, flags=flags)
        access = ACCESS | (e.IBV_ACCESS_ON_DEMAND if on_demand else 0)
        self.mr = MR(end.pd, length, access, address=self.address)

    @property
    def pages(self) -> int:
        """Pages of 4 KiB that it covers."""
        return -(-self.length // PAGE)

    def sge(self, length: int | None = None, offset: int = 0) -> SGE:
        """``length`` bytes from ``offset`` on; by default all that is left."""
        return SGE(self.address + offset, self.length - offset if length is None else length, self.mr.lkey)

    def drop(self, length: int | None = None, offset: int = 0) -> None:
        """``madvise(MADV_DONTNEED)``: pages and translations go, the next access faults."""
        madvise(self.address + offset, self.length - offset if length is None else length, MADV_DONTNEED)

    def page_out(self) -> None:
        """``madvise(MADV_PAGEOUT)``: to the swap device."""
        madvise(self.address, self.length, MADV_PAGEOUT)

    def touch(self) -> None:
        """The CPU writes a byte of every page: they are resident, the device does not have them yet."""
        for page in range(self.pages):
            write(self.address + page * PAGE, b"\1", 1)

    def populate(self) -> None:
        """``madvise(MADV_POPULATE_WRITE)``: the CPU has the pages. Not in kernels of the 3.x disciplines."""
        madvise(self.address, self.length, MADV_POPULATE_WRITE)

    def fill(self, data: bytes, offset: int = 0) -> None:
        """The CPU writes."""
        write(self.address + offset, data, len(data))

    def bytes(self, length: int | None = None, offset: int = 0) -> bytes:
        """What the CPU reads."""
        return bytes(read(self.address + offset, self.length - offset if length is None else length))

    def close(self) -> None:
        """Deregister and unmap."""
        self.mr.close()
        munmap(self.address, self.length)


class End:
    """One queue pair with its context, PD and CQ. ``depth``: requests and receives that can be outstanding. ``beside``:
    another end whose PD and CQ it uses."""

    def __init__(self, bench: Bench, nic: int, kind: int = e.IBV_QPT_RC, depth: int = 128,
                 beside: End | None = None) -> None:  # fmt: skip
        self.bench = bench
        self.context = bench.context(nic)
        self.pd: PD = beside.pd if beside else PD(self.context)
        self.cq: CQ = beside.cq if beside else CQ(self.context, CQ_ENTRIES)
        cap = QPCap(max_send_wr=depth, max_recv_wr=depth, max_send_sge=4, max_recv_sge=4)
        self.qp = QP(self.pd, QPInitAttr(qp_type=kind, scq=self.cq, rcq=self.cq, cap=cap, sq_sig_all=0))
        self._shares = beside is not None

    def close(self) -> None:
        """Destroy the queue pair, and its CQ and PD if they are its own."""
        self.qp.close()
        if not self._shares:
            self.cq.close()
            self.pd.close()

    @property
    def gid(self) -> Any:
        """The address of its device."""
        return self.context.query_gid(PORT, GID_INDEX)

    def route(self, peer: End) -> AHAttr:
        """The way to another one."""
        return AHAttr(port_num=PORT, is_global=1, gr=GlobalRoute(dgid=peer.gid, sgid_index=GID_INDEX))

    def connect(self, peer: End, **attributes: int) -> None:
        """To RTS. ``attributes`` of the QP over ``RC_ATTRIBUTES``; a UD queue pair takes none."""
        attr = QPAttr(port_num=PORT)
        values = {"dest_qp_num": peer.qp.qp_num, "qp_access_flags": ACCESS, "qkey": QKEY} | RC_ATTRIBUTES | attributes
        for name, value in values.items():
            setattr(attr, name, value)
        attr.ah_attr = self.route(peer)
        self.qp.to_rts(attr)

    def region(self, length: int, *, on_demand: bool = True) -> Region:
        """New memory, zeroed and not resident, with an MR."""
        return self.bench.opened(Region(self, length, on_demand=on_demand))

    def pinned(self, length: int) -> Region:
        """New memory with an MR that holds its pages."""
        return self.region(length, on_demand=False)

    def recv(self, *sges: SGE, wr_id: int = 0) -> None:
        """Post a receive."""
        self.qp.post_recv(RecvWR(wr_id=wr_id, num_sge=len(sges), sg=list(sges)))

    def post(self, opcode: int, *sges: SGE, wr_id: int = 0, remote: Region | None = None, offset: int = 0,
             flags: int = e.IBV_SEND_SIGNALED) -> None:  # fmt: skip
        """Post a request; ``remote`` and ``offset``: where READ, WRITE and atomics go."""
        wr = SendWR(wr_id=wr_id, opcode=opcode, num_sge=len(sges), sg=list(sges), send_flags=flags)
        if remote is not None and opcode in (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD):
            wr.set_wr_atomic(remote.mr.rkey, remote.address + offset, 1, 0)
        elif remote is not None:
            wr.set_wr_rdma(remote.mr.rkey, remote.address + offset)
        self.qp.post_send(wr)

    def send(self, *sges: SGE, wr_id: int = 0) -> None:
        """Post a SEND."""
        self.post(e.IBV_WR_SEND, *sges, wr_id=wr_id)

    def write(self, remote: Region, *sges: SGE, offset: int = 0, wr_id: int = 0) -> None:
        """Post an RDMA WRITE."""
        self.post(e.IBV_WR_RDMA_WRITE, *sges, remote=remote, offset=offset, wr_id=wr_id)

    def read(self, remote: Region, *sges: SGE, offset: int = 0, wr_id: int = 0) -> None:
        """Post an RDMA READ."""
        self.post(e.IBV_WR_RDMA_READ, *sges, remote=remote, offset=offset, wr_id=wr_id)

    def send_datagram(self, handle: AH, peer: End, *sges: SGE, wr_id: int = 0) -> None:
        """Post a UD SEND."""
        wr = SendWR(wr_id=wr_id, num_sge=len(sges), sg=list(sges))
        wr.set_wr_ud(handle, peer.qp.qp_num, QKEY)
        self.qp.post_send(wr)

    def handle(self, peer: End) -> AH:
        """An address handle of the way to another one."""
        return self.bench.opened(AH(self.pd, attr=self.route(peer)))

    def poll(self, count: int = 1) -> list[Any]:
        """Completions that have come, at most ``count``; if none has, time runs until one comes or 10 ms are over."""
        found: list[Any] = self.cq.poll(count)[1]
        return found

    def completions(self, count: int = 1, patience_ns: int = PATIENCE_NS) -> Iterator[Any]:
        """The next ``count`` completions as they come, good or bad. Raises WorkloadError if they do not."""
        until = self.bench.now() + patience_ns
        while count:
            found = self.poll(count)
            count -= len(found)
            yield from found
            if not found and self.bench.now() >= until:
                raise WorkloadError(f"{count} completions missing after {patience_ns / 1e9:g} s of virtual time")

    def wait(self, count: int = 1) -> Any:
        """The last of the next ``count`` completions. Raises WorkloadError if one is not a success."""
        last = None
        for last in self.completions(count):
            if last.status != e.IBV_WC_SUCCESS:
                raise WorkloadError(f"request {last.wr_id} failed: {status_name(last)}")
        return last


def status_name(completion: Any) -> str:
    """``RNR_RETRY_EXC_ERR``."""
    return e.ibv_wc_status(completion.status).name.removeprefix("IBV_WC_")


def _times(taken: dict[str, int]) -> dict[str, int]:
    return {f"{name}_ns": ns for name, ns in taken.items()}


def _whose(entry: stages.Entry) -> dict[str, int]:
    at = entry["detected"] if "detected" in entry else entry["notifier"]
    return {"at": at, "pages": entry["pages"], "mr": entry["mr"]}


class Bench:
    """The lab of one run, and what a workload opens in it. All is kept until the end of the run and closed then, last
    first: what a workload makes itself goes into ``opened``, or Python decides when it is destroyed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._contexts: dict[int, Context] = {}
        self._opened: list[Any] = []

    def opened(self, thing: T) -> T:
        """Have it closed at the end of the run."""
        self._opened.append(thing)
        return thing

    def context(self, nic: int = 0) -> Context:
        """The device of that number, opened once."""
        if nic not in self._contexts:
            self._contexts[nic] = Context(name=self.lab.config.device_names[nic])
        return self._contexts[nic]

    def end(self, nic: int = 0, kind: int = e.IBV_QPT_RC, depth: int = 128, beside: End | None = None) -> End:
        """A queue pair that is not connected."""
        return self.opened(End(self, nic, kind, depth, beside))

    def rc_pair(self, nic_a: int = 0, nic_b: int | None = None, *, depth: int = 128,
                beside: tuple[End | None, End | None] = (None, None),
                **attributes: int) -> tuple[End, End]:  # fmt: skip
        """Two connected RC queue pairs, by default on the first and the last NIC of the lab."""
        a = self.end(nic_a, depth=depth, beside=beside[0])
        b = self.end(self._last if nic_b is None else nic_b, depth=depth, beside=beside[1])
        a.connect(b, **attributes)
        b.connect(a, **attributes)
        return a, b

    def ud_pair(self, nic_a: int = 0, nic_b: int | None = None, *, depth: int = 128) -> tuple[End, End]:
        """Two UD queue pairs."""
        nic = self._last if nic_b is None else nic_b
        a, b = self.end(nic_a, e.IBV_QPT_UD, depth), self.end(nic, e.IBV_QPT_UD, depth)
        a.connect(b)
        b.connect(a)
        return a, b

    @property
    def _last(self) -> int:
        return int(self.lab.config.nics) - 1

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.lab.config.seed)

    def now(self) -> int:
        """Virtual time, ns."""
        return int(self.lab.world.now)

    def pause(self, ns: int) -> None:
        """Let virtual time pass."""
        timeline = self.lab.timeline
        self.lab.endpoint.enter(lambda: timeline.pass_time(ns))

    def settle(self) -> None:
        """Let time pass until nothing is left to run."""
        self.lab.endpoint.settle(lambda: False, PATIENCE_NS)

    def events(self) -> int:
        """Device events run so far."""
        return int(self.lab.world.control[0].ran)

    def stages(self) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        """Page faults and invalidations that are over since the last call: when each began (``at``), its ``total_ns``,
        ``pages`` and ``mr``, and the ns of each stage of ``nicemu.observe.stages`` (``detect_ns``)."""
        kept = self.lab.driver.stages
        faults = [{"total_ns": stages.fault_total(entry), **_times(stages.fault_stages(entry)), **_whose(entry)}
                  for entry in kept.faults if stages.complete(entry)]  # fmt: skip
        losses = [{"total_ns": stages.invalidation_total(entry), **_times(stages.invalidation_stages(entry)),
                   **_whose(entry)} for entry in kept.invalidations]  # fmt: skip
        kept.faults.clear()
        kept.invalidations.clear()
        return faults, losses

    def counters(self) -> dict[str, int]:
        """All counters by dotted name: ``nic0.page_faults``, ``mr.page_faults`` (the sum over all MRs),
        ``host.pgfault``, ``link.nic0.out.packets``, ``driver.num_failed_resolutions``, ``checks.violations``."""
        lab = self.lab
        counters: dict[str, int] = {}
        for number, device in enumerate(lab.devices):
            counters |= {f"nic{number}.{name}": value for name, value in device.counters().items()}
        for region in lab.driver.mr_counters.values():
            for name, value in region.items():
                counters[f"mr.{name}"] = counters.get(f"mr.{name}", 0) + value
        counters |= {f"host.{name}": int(value) for name, value in sorted(lab.host.counters.items())}
        for row, name in lab.fabric.captured().items():
            link = f"link.{name.replace(' ', '.')}"
            counters |= {f"{link}.{field}": value for field, value in lab.fabric.counters(row).items()}
        counters |= {f"driver.{name}": getattr(lab.driver.counters, name) for name in lab.driver.counters.__slots__}
        return counters | {"checks.violations": lab.violations, "checks.reports": len(lab.host.reports)}

    def close(self) -> None:
        """Close everything, last first, then the devices."""
        while self._opened:
            self._opened.pop().close()
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
