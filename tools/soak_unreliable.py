"""Unreliable flows of the soak, UC and UD: messages may be lost, never wrong.

A flow numbers its messages in the immediate: what arrives is one of them, once, in order, and right; what does not
arrive may have left any part of itself in the buffers posted for it.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
from soak_memory import PAGE, Area
from soak_traffic import SEND_IMM, WINDOW, WITH_IMM, WRITE, WRITE_IMM, Flow, Message, Sent

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.wr import RecvWR, SendWR

GRH = 40
UNRELIABLE_BYTES = 16384
UNRELIABLE_MIX = {SEND_IMM: 50, WRITE_IMM: 25, WRITE: 25}


class Unreliable(Flow):
    """UC, and UD with ``address`` (AH, QP number, Q_Key): receives stay posted, messages may be lost."""

    def __init__(self, name: str, qps: tuple[Any, Any], areas: dict[str, Area], draw: random.Random,
                 address: tuple[Any, int, int] | None = None) -> None:  # fmt: skip
        self.mix = {SEND_IMM: 1} if address else UNRELIABLE_MIX
        super().__init__(name, qps, areas, draw)
        self.address = address
        self.head = GRH if address else 0
        self.most = PAGE if address else UNRELIABLE_BYTES
        self.slot = self.most + 128
        """Bytes from buffer to buffer: there is something between them that must not change."""
        self.free = deque(range(min(WINDOW, self.inbox.length // self.slot)))
        self.posted: deque[int] = deque()
        self.out: dict[int, Message] = {}
        self.writes: list[tuple[int, int, np.ndarray, int | None]] = []
        self.newest = 0

    done = property(lambda self: not self.sent)

    def batch(self) -> int:
        """Post buffers and some requests; gives how many."""
        while self.free:
            buffer = self.free.popleft()
            self.posted.append(buffer)
            places = [(buffer * self.slot, self.most + self.head)]
            self.peer.post_recv(RecvWR(buffer, 1, self.pieces(self.inbox, places)))
        requests: list[SendWR] = []
        at = 0
        for _ in range(self.draw.randint(1, WINDOW // 2)):
            opcode = self.draw.choices(self.opcodes, self.weights)[0]
            length = self.size(self.most)
            if at + length > self.target.length:
                break
            requests.append(self._request(opcode, length, at))
            at += length + 1 if opcode in (WRITE, WRITE_IMM) else 0
        if requests and not requests[-1].send_flags & e.IBV_SEND_SIGNALED:
            requests[-1].send_flags |= e.IBV_SEND_SIGNALED
            self.sent.append(Sent(requests[-1].wr_id, requests[-1].opcode))
        count = len(requests)
        self.post(requests)
        self.counts["messages"] += count
        return count

    def _request(self, opcode: int, length: int, at: int) -> SendWR:
        self.number += 1
        sges, data = self.gather(length)
        flags = e.IBV_SEND_SIGNALED if self.draw.random() < 0.5 else 0
        request = SendWR(self.number, opcode, len(sges), self.number if opcode in WITH_IMM else 0, sges, flags)
        if flags:
            self.sent.append(Sent(self.number, opcode))
        if self.address is not None:
            request.set_wr_ud(*self.address)
        if opcode == SEND_IMM:
            self.out[self.number] = Message(length + self.head, e.IBV_WC_RECV, self.number, data)
        else:
            request.set_wr_rdma(self.target.rkey, self.target.address + at)
            self.writes.append((at, length, data, self.number if opcode == WRITE_IMM else None))
        if opcode == WRITE_IMM:
            self.out[self.number] = Message(length, e.IBV_WC_RECV_RDMA_WITH_IMM, self.number, None)
        self.counts[opcode.name[len("IBV_WR_") :]] += 1
        return request

    def on_received(self, wc: Any) -> None:
        """A completion of the QP that receives: the oldest buffer, and a message newer than the last."""
        if not self.posted or wc.wr_id != self.posted[0]:
            self.fail(f"receive {wc.wr_id} completed (status {wc.status}), due is {self.posted and self.posted[0]}")
        self.free.append(self.posted.popleft())
        number = wc.imm_data
        message = self.out.pop(number, None)
        if message is None or number <= self.newest:
            self.fail(f"message {number} arrived after {self.newest}: it is no message, or came twice")
            return
        self.newest = number
        found = wc.status, wc.opcode, wc.byte_len
        if found != (e.IBV_WC_SUCCESS, message.opcode, message.length):
            self.fail(f"receive {wc.wr_id}: (status, opcode, bytes) {found} and not "
                      f"{(0, message.opcode, message.length)}")  # fmt: skip
        self.counts["arrived"] += 1
        if message.data is not None:
            at = wc.wr_id * self.slot + self.head
            self.inbox.model[at : at + len(message.data)] = message.data
            self.inbox.check(at, len(message.data))
        else:
            at, length, data, _ = next(write for write in self.writes if write[3] == number)
            self.target.model[at : at + length] = data
            self.target.check(at, length)

    def settle(self) -> None:
        """Nothing is under way: what was lost may have left parts of itself, each byte the old or the new one."""
        for at, length, data, _ in self.writes:
            found, old = self.target.view[at : at + length], self.target.model[at : at + length]
            if not ((found == old) | (found == data)).all():
                self.fail(f"bytes of [{at}, {at + length}) are neither those before nor those of the write")
            old[:] = found
        buffers = len(self.free) + len(self.posted)
        rows = slice(0, buffers * self.slot)
        view, model = (each[rows].reshape(buffers, self.slot) for each in (self.inbox.view, self.inbox.model))
        model[:, : self.most + self.head] = view[:, : self.most + self.head]
        self.writes.clear()
        self.out.clear()
