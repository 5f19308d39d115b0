"""Host work that takes longer or shorter than its costs say."""

from __future__ import annotations

from typing import Any, TypeVar

from nicemu.timeline.host import Steps

T = TypeVar("T")
ONE = 1 << 16


def stretched(steps: Steps[T], factor: int) -> Steps[T]:
    """``steps`` with all their CPU time times ``factor`` / 65536. What they sleep or wait for stays as it is."""
    return steps if factor == ONE else _stretch(steps, factor)


def _stretch(steps: Steps[T], factor: int) -> Steps[T]:
    answer: Any = None
    try:
        while True:
            wait = steps.send(answer)
            answer = yield (wait * factor >> 16 if type(wait) is int else wait)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()
