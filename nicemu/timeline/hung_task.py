"""Who waits for whom, and where: what ``khungtaskd`` and a stalled timeline have to say.

A wait may name who could end it: ``holders()``, host threads (the owner of a lock, the readers of a grace period). From
thread to holder to what that one waits for there is a chain; one that comes back to itself is a deadlock.

Left out: holders that are no host threads. A device is the end of a chain.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from nicemu.timeline.host import HostThread, Scheduler


def call_trace(thread: HostThread, quiet: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Functions that the thread is in, innermost first; names only, so that they are the same in every run.

    ``quiet``: modules that are left out."""
    frames = _running(sys._getframe(1)) if _runs(thread) else _suspended(thread.steps)
    return tuple(name for name, module in frames if name[0] != "<" and module not in quiet)


def _runs(thread: HostThread) -> bool:
    return bool(getattr(thread.steps, "gi_running", False))


def _running(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """From here out to the scheduler."""
    while frame is not None and frame.f_code is not Scheduler.step.__code__:
        yield frame.f_code.co_name, frame.f_globals.get("__name__", "")
        frame = frame.f_back


def _suspended(steps: Any) -> list[tuple[str, str]]:
    """The chain of ``yield from``."""
    frames: list[tuple[str, str]] = []
    while getattr(steps, "gi_frame", None) is not None:
        frames.append((steps.gi_code.co_name, steps.gi_frame.f_globals.get("__name__", "")))
        steps = steps.gi_yieldfrom
    return frames[::-1]


def holders(thread: HostThread) -> list[HostThread]:
    """Who would have to go on so that the thread can, as far as that is known; in order of their numbers."""
    ask = getattr(thread.waits_for, "holders", None)
    found: Iterable[HostThread] = ask() if ask is not None else ()
    return sorted((holder for holder in found if not holder.finished), key=lambda holder: holder.number)


def chain(thread: HostThread) -> str:
    """``umem_mutex, held by b, which waits for ZAP_MTT of nicemu0``: what the thread waits for, and so on."""
    text, seen = str(thread.waits_for), [thread]
    while found := holders(thread):
        others = "".join(f", {holder.name}" for holder in found[1:])
        thread = found[0]
        text += f", held by {thread.name}{others}"
        if thread in seen:
            return text + ": a deadlock"
        if thread.waits_for is None:
            return text + ", which can run"
        seen.append(thread)
        text += f", which waits for {thread.waits_for}"
    return text


def deadlocks(scheduler: Scheduler) -> list[list[HostThread]]:
    """Threads that wait for each other in a circle, each circle once, from its lowest number on."""
    found: list[list[HostThread]] = []
    done: set[int] = set()
    for number in sorted(scheduler.blocked):
        path: list[HostThread] = []
        _search(scheduler.blocked[number], path, done, found)
    return found


def _search(thread: HostThread, path: list[HostThread], done: set[int], found: list[list[HostThread]]) -> None:
    """Depth first; what was searched once is not searched again."""
    if thread in path:
        circle = path[path.index(thread) :]
        lowest = min(range(len(circle)), key=lambda i: circle[i].number)
        found.append(circle[lowest:] + circle[:lowest])
        return
    if thread.number in done or thread.waits_for is None:
        return
    done.add(thread.number)
    path.append(thread)
    for holder in holders(thread):
        _search(holder, path, done, found)
    path.pop()


def deadlock_lines(scheduler: Scheduler) -> list[str]:
    """A line for each circle."""
    return [
        "deadlock: " + "; ".join(f"{thread.name} waits for {thread.waits_for}" for thread in circle)
        for circle in deadlocks(scheduler)
    ]


def report(thread: HostThread) -> list[str]:
    """Where the thread and everybody whom it waits for are, as lines of call traces."""
    lines: list[str] = []
    seen: list[HostThread] = []
    left = [thread]
    while left:
        one = left.pop(0)
        if one in seen:
            continue
        seen.append(one)
        doing = " > ".join(one.context) or "nothing named"
        lines += [f"task {one.name}, {doing}; call trace:", *(f"  {name}" for name in call_trace(one))]
        left += holders(one)
    return lines
