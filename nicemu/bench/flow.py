"""A flow of requests that the device works off by itself: a chain of them posted to each QP, one doorbell each."""

from __future__ import annotations

import ctypes
import mmap
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nicemu.bench import labs
from nicemu.bench.measure import Batch, Counts, Watch
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from nicemu.workloads.bench import ACCESS, QKEY, Bench, End, WorkloadError

CHAIN_BYTES, CHAIN_MOST, CHAIN_LEAST = 32 << 20, 4096, 16
GRH = 40
"""Bytes in front of a received datagram."""
MTUS = {1024: e.IBV_MTU_1024, 4096: e.IBV_MTU_4096}
ATOMICS = (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD)


class Memory:
    """A pinned buffer: of the arena, or of the program (``owned``), which the NIC reaches by fault-safe copies."""

    def __init__(self, end: End, length: int, owned: bool) -> None:
        self.length = length
        self._map = mmap.mmap(-1, max(length, mmap.PAGESIZE)) if owned else None
        if self._map is not None:
            self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
            self.mr = end.bench.opened(MR(end.pd, length, ACCESS, address=self.address))
        else:
            region = end.pinned(length)
            self.address, self.mr = region.address, region.mr

    @property
    def content(self) -> bytes:
        """What is in it."""
        return ctypes.string_at(self.address, self.length)

    def fill(self, data: bytes) -> None:
        """The program writes."""
        ctypes.memmove(self.address, data, len(data))


@dataclass(frozen=True)
class Kind:
    """What a flow sends: ``opcode`` over ``transport``, messages of ``size`` bytes in packets of ``mtu``."""

    opcode: int = e.IBV_WR_RDMA_WRITE
    size: int = 65536
    mtu: int = 4096
    transport: int = e.IBV_QPT_RC
    owned: bool = False
    places: int = 1
    """Messages go round so many buffers, one behind the other."""

    @property
    def packets(self) -> int:
        """Packets with payload of one message."""
        return max(1, -(-self.size // self.mtu))

    @property
    def chain(self) -> int:
        """Requests that fill a queue well, and reach each of the places."""
        return max(CHAIN_LEAST, min(CHAIN_MOST, CHAIN_BYTES // self.size), self.places)

    @property
    def takes_receives(self) -> bool:
        """The other side posts receives."""
        return self.opcode == e.IBV_WR_SEND


class Flow:
    """Chains over some pairs of connected ends. All messages of a pair move the same buffers, as with perftest, so that
    they stay in the caches, or go round ``places`` of them. Only the last request of a chain completes with a CQE."""

    def __init__(self, bench: Bench, kind: Kind, pairs: list[tuple[End, End]], chain: int | None = None) -> None:
        self.bench, self.kind, self.pairs = bench, kind, pairs
        self.count = chain or kind.chain
        length = kind.size * kind.places
        self.data = random.Random(1).randbytes(length)
        self.memories = [tuple(Memory(end, length + GRH, kind.owned) for end in pair) for pair in pairs]
        self.sends = [self._sends(*pair, *memory) for pair, memory in zip(pairs, self.memories, strict=True)]
        self.receives = [self._receives(memory[1]) for memory in self.memories] if kind.takes_receives else []
        for source, _ in self._directions():
            source.fill(self.data)

    def _directions(self) -> list[tuple[Memory, Memory]]:
        """Where the bytes come from and go to."""
        reads = self.kind.opcode == e.IBV_WR_RDMA_READ
        return [(there, here) if reads else (here, there) for here, there in self.memories]

    def _sends(self, here: End, there: End, source: Memory, target: Memory) -> SendWR:
        handle = here.handle(there) if self.kind.transport == e.IBV_QPT_UD else None
        chain = None
        for number in range(self.count):
            flags = 0 if number else e.IBV_SEND_SIGNALED  # built from the last to the first
            at = number % self.kind.places * self.kind.size
            sges = [SGE(source.address + at, self.kind.size, source.mr.lkey)]
            wr = SendWR(wr_id=number, num_sge=1, sg=sges, opcode=self.kind.opcode, send_flags=flags, next_wr=chain)
            if handle is not None:
                wr.set_wr_ud(handle, there.qp.qp_num, QKEY)
            elif self.kind.opcode in ATOMICS:
                wr.set_wr_atomic(target.mr.rkey, target.address, 1, 0)
            elif not self.kind.takes_receives:
                wr.set_wr_rdma(target.mr.rkey, target.address + at)
            chain = wr
        assert chain is not None
        return chain

    def _receives(self, target: Memory) -> RecvWR:
        header = GRH if self.kind.transport == e.IBV_QPT_UD else 0
        sges, chain = [SGE(target.address, self.kind.size + header, target.mr.lkey)], None
        for number in range(self.count):
            chain = RecvWR(wr_id=number, num_sge=1, sg=sges, next_wr=chain)
        assert chain is not None
        return chain

    def batch(self, watch: Watch) -> Counts:
        """Post every chain, then run the device until it has nothing left to do; only that counts."""
        for (_, there), receives in zip(self.pairs, self.receives, strict=False):
            there.qp.post_recv(receives)
        ran, began = self.bench.events(), self.bench.now()
        for (here, _), sends in zip(self.pairs, self.sends, strict=True):
            here.qp.post_send(sends)
        with watch:
            self.bench.settle()
        events, took = self.bench.events() - ran, self.bench.now() - began
        self._take_completions()
        messages = self.count * len(self.pairs)
        return {"messages": messages, "packets": messages * self.kind.packets, "bytes": messages * self.kind.size,
                "events": events, "virtual_ns": took}  # fmt: skip

    def _take_completions(self) -> None:
        """One for each chain, and for each receive. WorkloadError: one failed, or is missing."""
        for here, there in self.pairs:
            here.wait()
            if self.receives:
                there.wait(self.count)

    def check(self) -> None:
        """The bytes arrived. WorkloadError: they did not."""
        if self.kind.opcode in ATOMICS:
            return
        at = GRH if self.kind.transport == e.IBV_QPT_UD else 0
        for source, target in self._directions():
            if target.content[at : at + len(self.data)] != source.content[: len(self.data)]:
                raise WorkloadError("the bytes that arrived are not those that were sent")


def connected(bench: Bench, kind: Kind, count: int = 1) -> list[tuple[End, End]]:
    """Pairs between the first and the last NIC; all share two CQs."""
    depth = kind.chain if count == 1 else max(16, CHAIN_MOST // count)
    if kind.transport == e.IBV_QPT_UD:
        return [bench.ud_pair(depth=depth) for _ in range(count)]
    first = bench.rc_pair(depth=depth, path_mtu=MTUS[kind.mtu])
    others = [bench.rc_pair(depth=depth, beside=first, path_mtu=MTUS[kind.mtu]) for _ in range(count - 1)]
    return [first, *others]


def flow(kind: Kind, qps: int = 1, **lab: Any) -> Callable[[], Any]:
    """Opener of a flow over so many QPs in a lab of its own."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        with labs.opened(**lab) as bench:
            pairs = connected(bench, kind, qps)
            made = Flow(bench, kind, pairs, None if qps == 1 else max(8, CHAIN_MOST // qps))
            yield made.batch
            if lab.get("copy_payload", True):
                made.check()

    return opener
