"""What a program sees of a failure on both sides, collected: completions, QP states, asynchronous events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nicemu.abi.rings import VENDOR_SYNDROME
from nicemu.abi.verbs import AsyncEvent, QpAttrMask, QpState, QpType, WcStatus
from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.qp import QP, QPAttr
from nicemu.pyverbs.wr import SendWR
from nicemu.uverbs import messages, session
from tests.lab.transports import End, close_all, connect

A = QpAttrMask
RTS = QpState.RTS
MS = 1_000_000
Seen = list[tuple[int, WcStatus]]
"""(wr_id, status) of completions."""


@contextmanager
def lab(**config: Any) -> Iterator[None]:
    """A lab of its own with this configuration."""
    session.reset()
    session.configure(load_config(None, config))
    try:
        yield
    finally:
        close_all()
        session.reset()


def pass_time(ns: int = 100 * MS) -> None:
    """Let everything happen that is on its way."""
    session.endpoint().settle(lambda: False, ns)


def events(end: End) -> list[AsyncEvent]:
    """Asynchronous events that wait on the end's context."""
    command = messages.GetAsyncEvent(end.ctx._opened())
    found = []
    while True:
        file = session.endpoint().dispatcher.event_file(command)
        assert file is not None
        if not file.ready:
            return found
        event = end.ctx.get_async_event()
        event.ack()
        found.append(AsyncEvent(event.event_type))


def seen(end: End) -> Seen:
    """Completions that are there; the vendor error says the status once more."""
    done = end.cq.poll(64)[1]
    assert all(wc.vendor_err == (VENDOR_SYNDROME + wc.status if wc.status else 0) for wc in done)
    return [(wc.wr_id, WcStatus(wc.status)) for wc in done]


def state(qp: QP) -> QpState:
    """The state as the device has it."""
    return QpState(qp.query(int(A.STATE))[0].qp_state)


def go(qp: QP, new: QpState, mask: A = A.STATE, **members: int) -> None:
    """Modify the QP."""
    attr = QPAttr(qp_state=new)
    for name, value in members.items():
        setattr(attr, name, value)
    qp.modify(attr, int(mask))


def pair(kind: QpType = QpType.RC, access: int | None = None, **changes: int) -> tuple[End, End]:
    """Two connected ends; ``changes``: members of the attributes of both QPs."""
    if not changes and access is None:
        return connect(kind)
    left, right = (End() if access is None else End(access) for _ in range(2))
    left.make(kind), right.make(kind)
    for end, peer in ((left, right), (right, left)):
        attr = end.attr(peer.qp)
        for name, value in changes.items():
            setattr(attr, name, value)
        end.qp.to_rts(attr)
    return left, right


def outcome(left: End, right: End) -> dict[str, Any]:
    """Everything: completions, states and events of both sides."""
    pass_time()
    return {
        "left": seen(left), "right": seen(right), "states": (state(left.qp), state(right.qp)),
        "events": (events(left), events(right)),
    }  # fmt: skip


def says(left: End, right: End, /, **wanted: Any) -> None:
    """What was seen is exactly this; by default nothing, and both QPs are in RTS."""
    expected = {"left": [], "right": [], "states": (RTS, RTS), "events": ([], [])} | wanted
    assert outcome(left, right) == expected


def write(left: End, right: End, wr_id: int = 1, at: int = 0, rkey: int | None = None, **options: Any) -> SendWR:
    """A WRITE of 8 bytes."""
    wr = left.send(8, wr_id, **{"opcode": e.IBV_WR_RDMA_WRITE} | options)
    wr.set_wr_rdma(right.mr.rkey if rkey is None else rkey, right.mr.buf + at)
    return wr


def atomic(left: End, right: End, length: int = 8, at: int = 0) -> SendWR:
    """A fetch-and-add."""
    wr = left.send(length, 1, opcode=e.IBV_WR_ATOMIC_FETCH_AND_ADD)
    wr.set_wr_atomic(right.mr.rkey, right.mr.buf + at, 1)
    return wr
