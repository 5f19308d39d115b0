"""Traffic of the soak: flows from one QP to another, and what each of their completions and bytes must be.

A reliable flow posts a batch, applies it to the models in the order of the requests, and accepts exactly the
completions that follow from it. For the unreliable ones see ``soak_unreliable.py``.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from soak_memory import Area, Wrong

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR

SIZES = ((0, 64, 30), (65, 1024, 32), (1025, 4096, 23), (4097, 16384, 12), (16385, 65536, 3))
"""Least and most bytes of a message, and how often."""
WINDOW = 48
"""Requests of a batch at most."""
SRQ_BYTES = 16384
INLINE = 256

SEND, SEND_IMM, WRITE, WRITE_IMM = e.IBV_WR_SEND, e.IBV_WR_SEND_WITH_IMM, e.IBV_WR_RDMA_WRITE, \
    e.IBV_WR_RDMA_WRITE_WITH_IMM  # fmt: skip
READ, ADD, SWAP = e.IBV_WR_RDMA_READ, e.IBV_WR_ATOMIC_FETCH_AND_ADD, e.IBV_WR_ATOMIC_CMP_AND_SWP
ATOMIC_WRITE, FLUSH = e.IBV_WR_ATOMIC_WRITE, e.IBV_WR_FLUSH
MIX = {SEND: 20, SEND_IMM: 10, WRITE: 22, WRITE_IMM: 8, READ: 18, ADD: 7, SWAP: 7, ATOMIC_WRITE: 4, FLUSH: 4}
COMPLETES_AS = {
    SEND: e.IBV_WC_SEND, SEND_IMM: e.IBV_WC_SEND, WRITE: e.IBV_WC_RDMA_WRITE, WRITE_IMM: e.IBV_WC_RDMA_WRITE,
    READ: e.IBV_WC_RDMA_READ, ADD: e.IBV_WC_FETCH_ADD, SWAP: e.IBV_WC_COMP_SWAP,
    ATOMIC_WRITE: e.IBV_WC_ATOMIC_WRITE, FLUSH: e.IBV_WC_FLUSH,
}  # fmt: skip
ATOMICS = (ADD, SWAP)
WITH_IMM, SENDS = (SEND_IMM, WRITE_IMM), (SEND, SEND_IMM)


@dataclass(slots=True)
class Sent:
    """A signaled request that must complete, and where the answer lies that must then be right."""

    wr_id: int
    opcode: int
    result: tuple[int, int] | None = None


@dataclass(slots=True)
class Message:
    """A message that must complete a receive."""

    length: int
    opcode: int
    imm: int | None
    data: np.ndarray | None


@dataclass
class Shared:
    """An SRQ, its buffers (offset and length by wr_id), and which of them are posted."""

    srq: Any
    area: Area
    posted: set[int] = field(default_factory=set)

    def refill(self) -> None:
        """Post every free buffer."""
        for wr_id in range(self.area.length // SRQ_BYTES):
            if wr_id not in self.posted:
                self.posted.add(wr_id)
                sge = SGE(self.area.address + wr_id * SRQ_BYTES, SRQ_BYTES, self.area.lkey)
                self.srq.post_recv(RecvWR(wr_id, 1, [sge]))


class Flow:
    """What both kinds of flow have: a QP that sends, one that receives, and the areas between them."""

    mix: dict[Any, int]

    def __init__(self, name: str, qps: tuple[Any, Any], areas: dict[str, Area], draw: random.Random) -> None:
        self.name, (self.qp, self.peer), self.draw = name, qps, draw
        self.source, self.target, self.inbox = areas["source"], areas["target"], areas["inbox"]
        self.areas = [area for area in areas.values() if area is not self.source]
        self.sent: deque[Sent] = deque()
        self.number = 0
        self.counts: Counter[str] = Counter()
        self.opcodes, self.weights = tuple(self.mix), tuple(self.mix.values())

    def fail(self, text: str) -> None:
        """:raises Wrong: always."""
        raise Wrong(f"{self.name}: {text}")

    def size(self, most: int) -> int:
        """Of a message."""
        low, high, _ = self.draw.choices(SIZES, [weight for _, _, weight in SIZES])[0]
        return min(self.draw.randint(low, high), most)

    def pieces(self, area: Area, places: list[tuple[int, int]]) -> list[SGE]:
        """SGEs of (offset, length)."""
        return [SGE(area.address + offset, length, area.lkey) for offset, length in places]

    def gather(self, length: int) -> tuple[list[SGE], np.ndarray]:
        """Pieces of the source, and their bytes."""
        draw, source = self.draw, self.source
        cuts = sorted(draw.randrange(length + 1) for _ in range(draw.choice((0, 0, 0, 1, 3)))) if length > 4 else []
        places = []
        for a, b in zip([0, *cuts], [*cuts, length], strict=True):
            places.append((draw.randrange(source.length - (b - a)), b - a))
        parts = [source.model[offset : offset + size] for offset, size in places]
        return self.pieces(source, places), parts[0] if len(parts) == 1 else np.concatenate(parts)

    def post(self, requests: list[SendWR]) -> None:
        """In chains."""
        while requests:
            count = self.draw.randint(1, 12)
            chain, requests = requests[:count], requests[count:]
            for one, next_one in itertools.pairwise(chain):
                one.next_wr = next_one
            self.qp.post_send(chain[0])

    def on_sent(self, wc: Any) -> None:
        """A completion of the QP that sends: the next one due and no other."""
        if not self.sent:
            self.fail(f"completion of request {wc.wr_id} (status {wc.status}) that is not due: a duplicate")
        wanted = self.sent.popleft()
        found = wc.wr_id, wc.status, wc.opcode
        if found != (wanted.wr_id, e.IBV_WC_SUCCESS, COMPLETES_AS[wanted.opcode]):
            self.fail(f"completed (wr_id, status, opcode) {found}, due is request {wanted.wr_id} of opcode "
                      f"{wanted.opcode}")  # fmt: skip
        if wanted.result is not None:
            if wc.byte_len != wanted.result[1]:
                self.fail(f"request {wc.wr_id} completed with {wc.byte_len} bytes and not {wanted.result[1]}")
            self.results.check(*wanted.result)

    results: Area


class Reliable(Flow):
    """RC."""

    mix = MIX

    def __init__(self, name: str, qps: tuple[Any, Any], areas: dict[str, Area], draw: random.Random,
                 shared: Shared | None = None) -> None:  # fmt: skip
        super().__init__(name, qps, areas, draw)
        self.results, self.shared = areas["results"], shared
        self.messages: deque[Message] = deque()
        self.posted: deque[tuple[int, int, int]] = deque()
        self._reads: list[tuple[int, int]] = []
        self._inbox_at = self._results_at = 0

    @property
    def done(self) -> bool:
        """Everything completed."""
        return not self.sent and not self.messages

    def batch(self) -> int:
        """Post some requests, and the receives for them; gives how many."""
        self._reads.clear()
        self._inbox_at = self._results_at = 0
        requests: list[SendWR] = []
        wanted = self.draw.randint(WINDOW // 4, WINDOW)
        while len(requests) < wanted:
            request = self._request(len(requests) == wanted - 1)
            if request is None:
                break
            requests.append(request)
        count = len(requests)
        self.post(requests)
        self.counts["messages"] += count
        return count

    def _request(self, last: bool) -> SendWR | None:
        """The next request, or None if the areas are full (and the last one was signaled)."""
        opcode = self.draw.choices(self.opcodes, self.weights)[0]
        most = SRQ_BYTES if self.shared is not None and opcode in SENDS else 65536
        length = 8 if opcode in (*ATOMICS, ATOMIC_WRITE) else self.size(most)
        if max(self._inbox_at, self._results_at) + length + 256 + 65536 > self.inbox.length:
            last = True
        if max(self._inbox_at, self._results_at) + length + 256 > self.inbox.length:
            return None
        self.number += 1
        signaled = last or self.draw.random() < 0.6
        flags = e.IBV_SEND_SIGNALED if signaled else 0
        request, result = self._remote_read(opcode, length) if opcode in (READ, *ATOMICS) else \
            (self._carries(opcode, length), None)  # fmt: skip
        request.send_flags |= flags
        if signaled:
            self.sent.append(Sent(self.number, opcode, result))
        self.counts[opcode.name[len("IBV_WR_") :]] += 1
        return request

    def _place(self, length: int, atomic: bool) -> int:
        """Where in the target."""
        return self.draw.randrange(self.target.length - length) & (-8 if atomic else -1)

    def _fence(self, at: int, length: int) -> int:
        """A write must not overtake a READ of the same bytes that may still be repeated."""
        if any(at < b and a < at + length for a, b in self._reads):
            self._reads.clear()
            self.counts["fenced"] += 1
            return int(e.IBV_SEND_FENCE)
        return 0

    def _remote_read(self, opcode: int, length: int) -> tuple[SendWR, tuple[int, int]]:
        """READ or atomic: the answer goes to the results."""
        at, to = self._place(length, opcode != READ), self._results_at + self.draw.randrange(64)
        if opcode != READ:
            to = -(-to // 8) * 8
        self._results_at = to + length
        self.results.model[to : to + length] = self.target.model[at : at + length]
        cut = self.draw.randrange(length + 1) if opcode == READ and length > 4 and self.draw.random() < 0.3 else length
        places = [(to, cut)] + ([(to + cut, length - cut)] if cut < length else [])
        request = SendWR(self.number, opcode, len(places), sg=self.pieces(self.results, places), send_flags=0)
        if opcode == READ:
            self._reads.append((at, at + length))
            request.set_wr_rdma(self.target.rkey, self.target.address + at)
        else:
            request.send_flags = self._fence(at, 8)
            self._atomic(request, opcode, at)
        return request, (to, length)

    def _atomic(self, request: SendWR, opcode: int, at: int) -> None:
        word = self.target.model[at : at + 8].view(np.uint64)
        old, value = int(word[0]), self.draw.getrandbits(64)
        if opcode == ADD:
            request.set_wr_atomic(self.target.rkey, self.target.address + at, value)
            word[0] = old + value & 2**64 - 1
        else:
            compare = old if self.draw.random() < 0.5 else self.draw.getrandbits(64)
            request.set_wr_atomic(self.target.rkey, self.target.address + at, compare, value)
            word[0] = value if compare == old else old

    def _carries(self, opcode: int, length: int) -> SendWR:
        """A request that brings data, or none (FLUSH)."""
        if opcode == FLUSH:
            return self._flush()
        imm = self.draw.getrandbits(32) if opcode in WITH_IMM else 0
        sges, data = self.gather(length) if opcode != ATOMIC_WRITE else self._word()
        request = SendWR(self.number, opcode, len(sges), imm, sges, 0)
        if opcode in SENDS:
            self._receive(length, Message(length, e.IBV_WC_RECV, imm if opcode == SEND_IMM else None, data))
        else:
            at = self._place(length, opcode == ATOMIC_WRITE)
            request.set_wr_rdma(self.target.rkey, self.target.address + at)
            request.send_flags |= self._fence(at, length)
            self.target.model[at : at + length] = data
            if opcode == WRITE_IMM:
                self._receive(0, Message(length, e.IBV_WC_RECV_RDMA_WITH_IMM, imm, None))
        if 0 < length <= INLINE and opcode != ATOMIC_WRITE and self.draw.random() < 0.1:
            request.send_flags |= e.IBV_SEND_INLINE
            self.counts["inline"] += 1
        return request

    def _word(self) -> tuple[list[SGE], np.ndarray]:
        offset = self.draw.randrange(self.source.length // 8) * 8
        return self.pieces(self.source, [(offset, 8)]), self.source.model[offset : offset + 8]

    def _flush(self) -> SendWR:
        request = SendWR(self.number, e.IBV_WR_LOCAL_INV, send_flags=0)  # no SGE: SendWR has no FLUSH of its own
        request.opcode = FLUSH
        length = self.size(65536)
        kind = self.draw.choice((e.IBV_FLUSH_GLOBAL, e.IBV_FLUSH_PERSISTENT, 3))
        at = self.target.address + self._place(length, False)
        request.set_wr_atomic(self.target.rkey, at, int(kind) | self.draw.randrange(2) << 8, length)
        return request

    def _receive(self, length: int, message: Message) -> None:
        """The peer expects a message, and posts a buffer for it unless it has an SRQ."""
        self.messages.append(message)
        if self.shared is not None:
            return
        at = self._inbox_at + self.draw.randrange(64)
        size = length + self.draw.choice((0, 0, 7, 100))
        self._inbox_at = at + size
        cut = self.draw.randrange(size + 1) if size > 4 and self.draw.random() < 0.2 else size
        places = [(at, cut)] + ([(at + cut, size - cut)] if cut < size else [])
        self.posted.append((self.number, at, size))
        self.peer.post_recv(RecvWR(self.number, len(places), self.pieces(self.inbox, places)))

    def on_received(self, wc: Any) -> None:
        """A completion of the QP that receives."""
        if not self.messages:
            self.fail(f"receive {wc.wr_id} completed (status {wc.status}), and no message is due: a duplicate")
        message = self.messages.popleft()
        if self.shared is not None:
            if wc.wr_id not in self.shared.posted:
                self.fail(f"receive {wc.wr_id} of the SRQ completed twice")
            self.shared.posted.discard(wc.wr_id)
            area, at = self.shared.area, wc.wr_id * SRQ_BYTES
        else:
            wr_id, at, _ = self.posted.popleft()
            area = self.inbox
            if wc.wr_id != wr_id:
                self.fail(f"receive {wc.wr_id} completed, due is {wr_id}")
        flags = e.IBV_WC_WITH_IMM if message.imm is not None else 0
        found = wc.status, wc.opcode, wc.byte_len, wc.wc_flags & e.IBV_WC_WITH_IMM
        wanted = e.IBV_WC_SUCCESS, message.opcode, message.length, flags
        if found != wanted or (message.imm is not None and wc.imm_data != message.imm):
            self.fail(f"receive {wc.wr_id}: (status, opcode, bytes, with imm) {found}, imm {wc.imm_data:#x} and not "
                      f"{wanted}, {message.imm}")  # fmt: skip
        if message.data is not None:
            area.model[at : at + message.length] = message.data
            area.check(at, message.length)
