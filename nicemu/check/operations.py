"""Operations of scenarios: the program's accesses and system calls, and steps of the kernel. Verbs: ``requests.py``.

Addresses are (area, page); values fill whole pages. A call that fails gives its errno as a result.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nicemu.check.reference import (
    Effect,
    copy,
    copy_all,
    discard,
    end,
    free_lazily,
    loads,
    move,
    protect,
    store,
    uniform,
    unmap,
    until_failed,
)
from nicemu.check.scenario import Operation
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed

PAGE = 4096
OK = "ok"


def attempted(steps: Steps[Any]) -> Steps[str]:
    """``ok``, or the name of the error."""
    try:
        yield from steps
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return OK


@dataclass(frozen=True, slots=True)
class Range(Operation):
    """What an operation on pages of an area has in common."""

    area: str
    page: int = 0
    pages: int = 1
    mm: str = ""

    def keys(self) -> list[tuple[str, str, int]]:
        """The reference's names of its pages."""
        return [(self.mm, self.area, page) for page in range(self.page, self.page + self.pages)]

    def place(self) -> str:
        """The range in a program."""
        return f"{self.area} + {self.page} * PAGE, {self.pages} * PAGE"

    def here(self, line: str) -> str:
        """A line of a program whose children only wait: what a child does is a comment."""
        return f"pass  # {self.mm}: {line}" if self.mm else line


# The program's CPU ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write(Range):
    """The CPU fills pages with ``value``."""

    value: int = 0

    def run(self, bed: Testbed) -> Steps[Any]:
        for page in range(self.page, self.page + self.pages):
            write = bed.process(self.mm).mm.copy_to_user(bed.at(self.area, page), bytes([self.value]) * PAGE)
            status = yield from attempted(write)
            if status != OK:
                return status
        return OK

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return until_failed(key, result in (OK, None), [partial(store, key=k, value=self.value) for k in self.keys()])

    def code(self) -> list[str]:
        return [self.here(f"fill({self.place()}, {self.value})")]


@dataclass(frozen=True, slots=True)
class Read(Range):
    """The CPU looks at pages."""

    def run(self, bed: Testbed) -> Steps[Any]:
        seen: list[Any] = []
        for page in range(self.page, self.page + self.pages):
            try:
                data = yield from bed.process(self.mm).mm.copy_from_user(bed.at(self.area, page), PAGE)
            except OSError:
                return (*seen, None)
            seen.append(uniform(data))
        return tuple(seen)

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(loads, key=k, value=v) for k, v in zip(self.keys(), result or (), strict=False)]

    def code(self) -> list[str]:
        return [self.here(f"look({self.place()})")]


# System calls ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Munmap(Range):
    """``munmap``."""

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from attempted(bed.process(self.mm).munmap(bed.at(self.area, self.page), self.pages * PAGE)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(unmap, key=k) for k in self.keys()]

    def code(self) -> list[str]:
        return [self.here(f"munmap({self.place()})")]


@dataclass(frozen=True, slots=True)
class Madvise(Range):
    """``madvise``; of the advices MADV_DONTNEED (4) and MADV_FREE (8) change contents."""

    advice: int = 4

    def run(self, bed: Testbed) -> Steps[Any]:
        process = bed.process(self.mm)
        return (yield from attempted(process.madvise(bed.at(self.area, self.page), self.pages * PAGE, self.advice)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        change = {4: discard, 8: free_lazily}.get(self.advice)
        return [partial(change, key=k) for k in self.keys()] if change is not None else []

    def code(self) -> list[str]:
        return [self.here(f"madvise({self.place()}, {self.advice})")]


@dataclass(frozen=True, slots=True)
class Mprotect(Range):
    """``mprotect``."""

    prot: int = 1

    def run(self, bed: Testbed) -> Steps[Any]:
        process = bed.process(self.mm)
        return (yield from attempted(process.mprotect(bed.at(self.area, self.page), self.pages * PAGE, self.prot)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(protect, key=k, prot=self.prot) for k in self.keys()] if result in (OK, None) else []

    def code(self) -> list[str]:
        return [self.here(f"mprotect({self.place()}, {self.prot})")]


@dataclass(frozen=True, slots=True)
class Mremap(Range):
    """``mremap`` that must move the whole area, which is ``to`` afterwards: it grows, or (``align``) goes to a free
    address that is a multiple of so many bytes."""

    to: str = "moved"
    align: int = 0

    def run(self, bed: Testbed) -> Steps[Any]:
        old, length, process = bed.at(self.area, self.page), self.pages * PAGE, bed.process(self.mm)
        where = (length + PAGE, 1, 0)
        if self.align:
            where = (length, 3, process.mm.unmapped_area(FrameKind.MODEL, length, 3, self.align))
        try:
            bed.areas[self.to] = yield from process.mremap(old, length, *where)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        bed.sizes[self.to] = bed.sizes[self.area]
        return OK

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result not in (OK, None):
            return []
        return [partial(move, key=k, new=(self.mm, self.to, k[2])) for k in self.keys()]

    def code(self) -> list[str]:
        return [f"{self.to} = mremap({self.place()}, {self.pages + 1} * PAGE)"]


@dataclass(frozen=True, slots=True)
class Fork(Operation):
    """``fork``: the child is called ``child``."""

    child: str = "child"

    def run(self, bed: Testbed) -> Steps[Any]:
        bed.spaces[self.child] = yield from bed.lab.process.fork()
        return tuple(key[1:] for key in bed.pages() if key[0] == "")

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result is None:
            return [partial(copy_all, child=self.child)]
        return [partial(copy, key=("", *k), new=(self.child, *k)) for k in result]

    def code(self) -> list[str]:
        name = self.child
        return [f"{name} = os.fork()", f"while not {name}:", "    signal.pause()", f"children.append({name})"]


@dataclass(frozen=True, slots=True)
class Exit(Operation):
    """A child ends."""

    mm: str = "child"

    def run(self, bed: Testbed) -> Steps[Any]:
        process, bed.spaces[self.mm] = bed.spaces[self.mm], None
        yield from process.exit()
        return OK

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(end, mm=self.mm)]

    def code(self) -> list[str]:
        return [f"os.kill({self.mm}, signal.SIGKILL)"]


@dataclass(frozen=True, slots=True)
class Kernel(Operation):
    """A step of the kernel that changes no contents: reclaim, migration, writeback, KSM, ..."""

    what: str
    steps: Callable[[Testbed], Steps[Any]]
    program: str = ""
    """A line that makes it likely on a real machine."""

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from attempted(self.steps(bed)))

    def code(self) -> list[str]:
        return [self.program or f"pass  # the kernel: {self.what}"]

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Change(Kernel):
    """A step of the kernel that changes contents: ``parts`` are its effects, atomic each."""

    parts: tuple[Effect, ...] = ()

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return list(self.parts) if result in (OK, None) else []


@dataclass(frozen=True, slots=True)
class Guest(Range):
    """Other subscribers reach the pages through translations of their own: each faults them in."""

    write: bool = True

    def run(self, bed: Testbed) -> Steps[Any]:
        for page in range(self.page, self.page + self.pages):
            for each in bed.subscribers:
                yield from attempted(each.access(bed.at(self.area, page), self.write))
        return OK

    def code(self) -> list[str]:
        return ["pass  # a virtual machine or another partition uses the pages"]
