"""The sequential memory that every run must equal: contents of pages, without time, devices or reclaim.

A state maps ``(mm, area, page)`` to a :class:`Cell`, and ``(file, page)`` to the bytes of a file (a number from 0 to
255 that fills the page; None: beyond the end). A run is explained if its operations, each taken apart into effects
that are atomic, can be put in an order that keeps the order of each thread and of calls that did not overlap, and
gives what the threads observed and the memory that was there at the end (Herlihy and Wing's linearizability).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

State = dict[Hashable, Any]
Effect = Callable[[State], bool]
"""Changes a state in place; False: it cannot happen now with what was observed."""

READ, WRITE = 1, 2


class Cell(NamedTuple):
    """One page of one address space: permissions, contents (None: those of the file), the file page behind it.

    ``lazy``: MADV_FREE was there: until the next write the contents may become zero at any time."""

    prot: int
    value: int | None
    file: tuple[str, int] | None = None
    shared: bool = False
    lazy: bool = False


def uniform(data: bytes) -> int:
    """The byte that fills ``data``, -1 if there are several."""
    return data[0] if data.count(data[0]) == len(data) else -1


def load(state: State, key: Hashable) -> int | None:
    """What a read of a page gives, None if it may not."""
    cell = state.get(key)
    if cell is None or not cell.prot & READ:
        return None
    return _contents(state, cell)


def _contents(state: State, cell: Cell) -> int | None:
    if cell.file is not None and state.get(cell.file) is None:
        return None
    return cell.value if cell.value is not None else state[cell.file]


def store(state: State, key: Hashable, value: int) -> bool:
    """A write; False if it may not."""
    cell = state.get(key)
    if cell is None or not cell.prot & WRITE or _contents(state, cell) is None:
        return False
    if cell.file is not None and cell.shared:
        state[cell.file] = value
    else:
        state[key] = cell._replace(value=value, lazy=False)
    return True


def loads(state: State, key: Hashable, value: int | None) -> bool:
    """A read that gave ``value``."""
    cell = state.get(key)
    if value == 0 and cell is not None and cell.lazy:
        return discard(state, key)
    return load(state, key) == value


def readable(state: State, key: Hashable) -> bool:
    """A read that succeeded."""
    return load(state, key) is not None


def discard(state: State, key: Hashable) -> bool:
    """MADV_DONTNEED: zeros, or the file's bytes again."""
    cell = state.get(key)
    if cell is not None:
        state[key] = cell._replace(value=0 if cell.file is None else None, lazy=False)
    return True


def free_lazily(state: State, key: Hashable) -> bool:
    """MADV_FREE."""
    cell = state.get(key)
    if cell is not None:
        state[key] = cell._replace(lazy=True)
    return True


def unmap(state: State, key: Any) -> bool:
    """munmap: the page is there no more."""
    state.pop(key, None)
    return True


def protect(state: State, key: Any, prot: int) -> bool:
    """mprotect."""
    if key in state:
        state[key] = state[key]._replace(prot=prot)
    return True


def move(state: State, key: Any, new: Any) -> bool:
    """mremap: the page is at ``new`` from now on."""
    if key in state:
        state[new] = state.pop(key)
    return True


def copy(state: State, key: Any, new: Any) -> bool:
    """fork, of a page."""
    if key in state:
        state[new] = state[key]
    return True


def copy_all(state: State, child: str) -> bool:
    """fork, of the whole program."""
    pages: list[Any] = [key for key in state if _of("", key)]
    return all(copy(state, key, (child, *key[1:])) for key in pages)


def _of(mm: str, key: Any) -> bool:
    """Is it a page of this address space?"""
    return len(key) == 3 and key[0] == mm


def end(state: State, mm: str) -> bool:
    """A process ends."""
    for key in [key for key in state if _of(mm, key)]:
        del state[key]
    return True


def without_mr(state: State, area: str) -> bool:
    """The area's MR is gone."""
    state[area, "MR"] = False
    return True


def through_mr(area: str, part: Effect, state: State) -> bool:
    """An effect of the device, which needs the area's MR."""
    return state.get((area, "MR"), True) and part(state)


def until_failed(key: Any, succeeded: bool, parts: Sequence[Effect]) -> list[Effect]:
    """The parts in order, all of them or (an error) some until one fails. A flushed request does nothing."""
    if succeeded:
        return list(parts)

    def attempt(part: Effect) -> Effect:
        def effect(state: State) -> bool:
            if not state.get(("failed", key)) and not part(state):
                state["failed", key] = True
            return True

        return effect

    def failed(state: State) -> bool:
        return state.pop(("failed", key), None) is not None

    return [*map(attempt, parts), failed]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a run: when it was called and when it returned (counters), and its effects."""

    what: str
    called: int
    returned: int
    effects: tuple[Effect, ...]


def explained(threads: list[list[Call]], initial: State, final: State) -> bool:
    """Is there an order of all effects that gives ``final``?"""
    ends = [call.returned for calls in threads for call in calls]
    assert len(set(ends)) == len(ends), "two calls returned at once"
    seen: set[Hashable] = set()
    todo: list[tuple[tuple[tuple[int, int], ...], State]] = [(((0, 0),) * len(threads), dict(initial))]
    while todo:
        places, state = todo.pop()
        mark = places, frozenset(state.items())
        if mark in seen:
            continue
        seen.add(mark)
        places = tuple(_skip(calls, place) for calls, place in zip(threads, places, strict=True))
        if all(call == len(calls) for calls, (call, _) in zip(threads, places, strict=True)):
            if _is(state, final):
                return True
            continue
        todo += _successors(threads, places, state)
    return False


def _is(state: State, final: State) -> bool:
    """Would a look at the whole memory find ``final``?"""
    found = ((key, cell) for key, cell in state.items() if isinstance(cell, Cell))
    cells = {key: cell for key, cell in found if cell.prot & READ and _contents(state, cell) is not None}
    return cells.keys() == final.keys() and all(
        final[key] == _contents(state, cell) or (cell.lazy and final[key] == 0) for key, cell in cells.items()
    )


def _skip(calls: list[Call], place: tuple[int, int]) -> tuple[int, int]:
    call, effect = place
    while call < len(calls) and effect == len(calls[call].effects):
        call, effect = call + 1, 0
    return call, effect


def _successors(threads: list[list[Call]], places: tuple[tuple[int, int], ...],
                state: State) -> list[tuple[tuple[tuple[int, int], ...], State]]:  # fmt: skip
    found = []
    for i, (calls, (call, effect)) in enumerate(zip(threads, places, strict=True)):
        if call == len(calls) or _overtakes(threads, places, i, calls[call]):
            continue
        after = dict(state)
        if calls[call].effects[effect](after):
            found.append(((*places[:i], (call, effect + 1), *places[i + 1 :]), after))
    return found


def _overtakes(threads: list[list[Call]], places: tuple[tuple[int, int], ...], i: int, call: Call) -> bool:
    """Something that returned before this call began is not done yet."""
    return any(
        j != i and at < len(calls) and calls[at].returned < call.called
        for j, (calls, (at, _)) in enumerate(zip(threads, places, strict=True))
    )
