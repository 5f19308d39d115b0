"""Receives that the program hears of by completion events: what moderation of interrupts costs and saves."""

from __future__ import annotations

from collections.abc import Iterator

from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CompChannel
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPCap, QPInitAttr
from nicemu.workloads import Row
from nicemu.workloads.bench import Bench, End, Region
from nicemu.workloads.stream import grown


class Sleeper(End):
    """An end that sleeps until its completion channel wakes it."""

    def __init__(self, bench: Bench, nic: int, depth: int) -> None:
        self.bench = bench
        self.context = bench.context(nic)
        self.pd, self.channel = PD(self.context), CompChannel(self.context)
        self.cq = CQ(self.context, depth, None, self.channel)
        cap = QPCap(max_send_wr=1, max_recv_wr=depth, max_send_sge=1, max_recv_sge=1)
        self.qp = QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))

    def close(self) -> None:
        """Destroy all that it made."""
        for each in (self.qp, self.cq, self.channel, self.pd):
            each.close()

    def sleep(self) -> int:
        """Sleep until there is an event; completions found then."""
        self.channel.get_cq_event(self.cq)
        self.cq.ack_events(1)
        self.cq.req_notify()
        return len(self.poll(self.cq.cqe))


def notified_receives(bench: Bench, *, message_bytes: int = 4096, messages: int = 1000) -> Iterator[Row]:
    """SENDs back to back, received by polling and then by completion events.

    From the first to the last NIC. ``delay_ns``: how much later than by polling the program had a message;
    ``per_interrupt``: messages for each interrupt of the receiver.
    """
    sender = bench.end(depth=messages)
    receiver = bench.opened(Sleeper(bench, len(bench.lab.devices) - 1, messages))
    sender.connect(receiver)
    receiver.connect(sender)
    source, target = sender.pinned(message_bytes), receiver.pinned(message_bytes)
    for _ in range(2):  # the first time fills caches
        start = _post(sender, receiver, source, target, messages)
        polled = [bench.now() - start for _ in receiver.completions(messages)]
        sender.wait(messages)
    receiver.cq.req_notify()
    before = bench.counters()
    start = _post(sender, receiver, source, target, messages)
    woken: list[int] = []
    while len(woken) < messages:
        count = receiver.sleep()
        woken += [bench.now() - start] * count
    name = f"nic{len(bench.lab.devices) - 1}.interrupts"
    per_interrupt = round(messages / grown(bench, before, name)["interrupts"], 3)
    for early, late in zip(polled, woken, strict=True):
        yield {"delay_ns": late - early, "per_interrupt": per_interrupt}


def _post(sender: End, receiver: End, source: Region, target: Region, messages: int) -> int:
    """All receives, then all sends; when the first one was posted."""
    for _ in range(messages):
        receiver.recv(target.sge())
    start = sender.bench.now()
    for _ in range(messages):
        sender.send(source.sge())
    return start
