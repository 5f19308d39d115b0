"""What a program sees of a failure, on both sides: completions, states of the QPs, asynchronous events."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pyverbs import enums as e
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.srq import SRQ, SrqAttr, SrqInitAttr

from .sides import Side, SideQP, move_to, state
from .waiting import async_event, status

RTS, ERR = "RTS", "ERR"
FLUSHED = "WR_FLUSH_ERR"
EVENTS = (
    "CQ_ERR", "QP_FATAL", "QP_REQ_ERR", "QP_ACCESS_ERR", "COMM_EST", "SQ_DRAINED", "PATH_MIG", "PATH_MIG_ERR",
    "DEVICE_FATAL", "PORT_ACTIVE", "PORT_ERR", "LID_CHANGE", "PKEY_CHANGE", "SM_CHANGE", "SRQ_ERR",
    "SRQ_LIMIT_REACHED", "QP_LAST_WQE_REACHED",
)  # fmt: skip
"""Names of ibv_event_type, by value."""
FAST = {"timeout": 8, "retry_cnt": 1, "rnr_retry": 1, "min_rnr_timer": 1}
"""A requester that gives up soon: a millisecond for a response (rxe: a tick), once again; an RNR NAK once again."""
PATIENT = {"timeout": 18, "retry_cnt": 3}
"""A requester that waits a second for a response: what it does within a test does not come from its timer."""
NUMBER_OPEN = "left open: verbs(7) only say that the call fails; drivers choose the errno"
CALL_OR_COMPLETION = "left open: IBA 11.4.1.1 (recalled) has immediate errors and completion errors for such requests"
FLUSHES_ITSELF = (
    "rxe is wrong: a request that fails before it leaves is flushed there, as if it stood behind an error; IBA 11.6.2 "
    "(recalled) has a status for each cause: memory, operation, bind"
)
FORBIDDEN_ELEMENT = (
    "rxe is wrong: a receive's element that its region does not allow is Local Protection Error (IBA 11.6.2, "
    "recalled), not a malformed request"
)
LONGER_THAN_RECEIVE = (
    "rxe is wrong: a message longer than its receive is Local Length Error, and the sender's Invalid Request (IBA "
    "11.6.2, recalled), not a malformed request"
)
FIRST_RECEIVE = 7
Seen = list[tuple[int, str]]
"""(wr_id, name of the status) of completions, in their order."""


def gather(cq: Any, count: int, seconds: float = 1, quiet: int = 4) -> Seen:
    """Completions until there are `count`, or until time is up; then what comes in `quiet` times 5 ms more."""
    done: Seen = []
    end = time.monotonic() + seconds
    left = quiet
    while left:
        if len(done) >= count or time.monotonic() > end:
            left -= 1
        found = cq.poll(32)[1]
        done += [(each.wr_id, status(each)) for each in found]
        if not found:
            time.sleep(0.005 if len(done) >= count else 0.001)
    return done


def per_queue(done: Seen) -> Seen:
    """Requests first, then receives, each in the order of their completions: between the queues there is none.

    These tests number requests from 1 and receives from FIRST_RECEIVE on.
    """
    return sorted(done, key=lambda each: each[0] >= FIRST_RECEIVE)


def events(side: Side, count: int = 0) -> list[str]:
    """Names of the next `count` asynchronous events of the side's context, and of what comes behind them."""
    names: list[str] = []
    while (event := async_event(side.context, 1 if len(names) < count else 0.05)) is not None:
        names.append(EVENTS[event])
    return names


class Outcome(NamedTuple):
    """What `near` asked for and `far` was asked, `near` first: statuses, states, events."""

    near: Seen
    far: Seen
    states: tuple[str, str]
    events: tuple[list[str], list[str]]


def outcome(a: SideQP, b: SideQP, near: int = 1, far: int = 0, events_far: int = 0) -> Outcome:
    """Wait for so many completions and events on each side; more or fewer are seen as they come."""
    done = per_queue(gather(a.side.cq, near)), per_queue(gather(b.side.cq, far))
    return Outcome(*done, (state(a), state(b)), (events(a.side), events(b.side, events_far)))


class Check:
    """Compares an outcome part by part with what the specification asks, and with what rxe does."""

    def __init__(self, accept: Callable[..., None]) -> None:
        self._accept = accept

    def __call__(self, a: SideQP, b: SideQP, near: Any = (), far: Any = (), states: tuple[str, str] = (RTS, RTS),
                 events: tuple[list[str], list[str]] = ([], []), rxe: dict[str, Any] | None = None,
                 why: str | dict[str, str] = "") -> None:  # fmt: skip
        """`rxe`: the parts in which it differs, by name; `why`: one reason, or one for each of those parts."""
        wanted = {"near": list(near), "far": list(far), "states": states, "events": events}
        seen = outcome(a, b, len(wanted["near"]), len(wanted["far"]), len(events[1]))
        for part, expected in wanted.items():
            options: dict[str, Any] = {}
            if rxe is not None and part in rxe:
                options = {"rxe": rxe[part], "why": why if isinstance(why, str) else why[part]}
            self._accept(part, getattr(seen, part), spec=expected, **options)


@pytest.fixture
def check(accept: Callable[..., None]) -> Check:
    """`check(a, b, near=[(wr_id, status)...], far=..., states=..., events=..., rxe={part: ...}, why=...)`."""
    return Check(accept)


def rights(names: str) -> int:
    """ibv_access_flags by their names, as in "LOCAL_WRITE REMOTE_READ": so that ids of tests have no numbers."""
    return sum(int(getattr(e, f"IBV_ACCESS_{name}")) for name in names.split())


def break_by_hand(qp: SideQP) -> None:
    """RTS to ERR."""
    move_to(qp, e.IBV_QPS_ERR)


def restart(qp: SideQP) -> None:
    """To RESET, from any state."""
    move_to(qp, e.IBV_QPS_RESET)


def shared_receives(side: Side, max_wr: int = 16, max_sge: int = 2, limit: int = 0) -> Any:
    """An SRQ of the side's PD; the test is skipped where there is none."""
    try:
        return SRQ(side.pd, SrqInitAttr(SrqAttr(max_wr=max_wr, max_sge=max_sge, srq_limit=limit)))
    except PyverbsRDMAError as error:
        if error.error_code == errno.EOPNOTSUPP:
            pytest.skip("the device has no SRQ")
        raise
