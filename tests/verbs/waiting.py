"""Waiting for completions and events, with an end."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from pyverbs.pyverbs_error import PyverbsRDMAError

T = TypeVar("T")
NOTHING_COMES: tuple[type[BaseException], ...] = ()
"""What a blocking call raises on a device that knows that nothing can come any more. conftest.py fills it."""
STATUSES = (
    *("SUCCESS", "LOC_LEN_ERR", "LOC_QP_OP_ERR", "LOC_EEC_OP_ERR", "LOC_PROT_ERR", "WR_FLUSH_ERR", "MW_BIND_ERR"),
    *("BAD_RESP_ERR", "LOC_ACCESS_ERR", "REM_INV_REQ_ERR", "REM_ACCESS_ERR", "REM_OP_ERR", "RETRY_EXC_ERR"),
    *("RNR_RETRY_EXC_ERR", "LOC_RDD_VIOL_ERR", "REM_INV_RD_REQ_ERR", "REM_ABORT_ERR", "INV_EECN_ERR"),
    *("INV_EEC_STATE_ERR", "FATAL_ERR", "RESP_TIMEOUT_ERR", "GENERAL_ERR", "TM_ERR", "TM_RNDV_INCOMPLETE"),
)
"""Names of ibv_wc_status, by value."""


def status(completion: Any) -> str:
    """Name of its status, without IBV_WC_."""
    return STATUSES[completion.status]


def completions(cq: Any, count: int, seconds: float = 10) -> list[Any]:
    """The next `count` completions in order. Fails when they have not come after `seconds`."""
    done: list[Any] = []
    end = time.monotonic() + seconds
    while len(done) < count:
        polled, found = cq.poll(min(count - len(done), 32))
        done += found
        if not polled:
            if time.monotonic() > end:
                seen = ", ".join(f"{each.wr_id}: {status(each)}" for each in done) or "none"
                pytest.fail(f"{count - len(done)} of {count} completions missing after {seconds} s (came: {seen})")
            time.sleep(0.0005)
    return done


def successes(cq: Any, count: int, seconds: float = 10) -> list[Any]:
    """The next `count` completions, which must all be a success."""
    done = completions(cq, count, seconds)
    failed = [f"wr_id {each.wr_id}: {status(each)}" for each in done if each.status]
    assert not failed, ", ".join(failed)
    return done


def leftovers(cq: Any, polls: int = 20) -> list[Any]:
    """What still comes in a tenth of a second: for tests of which nothing should come."""
    done: list[Any] = []
    for _ in range(polls):
        done += cq.poll(32)[1]
        time.sleep(0.005)
    return done


class Expired(Exception):
    """The alarm."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise Expired inside after `seconds`, and make a blocking call of C return with EINTR. Main thread only.

    The test's own time limit goes on after it.
    """

    def expire(_signal: int, _frame: object) -> None:
        raise Expired

    handler = signal.signal(signal.SIGALRM, expire)
    began, (left, interval) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001), interval)


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """What a blocking call gives, None if it gives nothing in time."""
    try:
        with alarm(seconds):
            try:
                return call()
            except PyverbsRDMAError as error:
                if error.error_code != errno.EINTR:
                    raise
                return None
    except (Expired, *NOTHING_COMES):
        return None


def has_cq_event(channel: Any, cq: Any, seconds: float = 5) -> bool:
    """An event of this CQ comes in time. It is acknowledged."""

    def take() -> bool:
        channel.get_cq_event(cq)
        cq.ack_events(1)
        return True

    return within(seconds, take) is True


def async_event(context: Any, seconds: float = 5) -> int | None:
    """Type of the next asynchronous event, None if none comes in time. It is acknowledged."""

    def take() -> int:
        event = context.get_async_event()
        event.ack()
        return int(event.event_type)

    return within(seconds, take)
