"""The operations of scenarios: the program's accesses and system calls, the peer's RDMA, and steps of the kernel.

Addresses are (area, page); values fill whole pages. A call that fails gives its errno as a result.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from nicemu.abi.verbs import Access, WrOpcode
from nicemu.check.reference import Effect, State, discard, free_lazily, loads, readable, store
from nicemu.check.scenario import Operation
from nicemu.tables.records import FrameKind
from nicemu.timeline.host import Steps
from nicemu.uverbs import messages as m

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed

PAGE = 4096
OK, FLUSHED = "ok", "WR_FLUSH_ERR"


def _try(steps: Steps[Any]) -> Steps[str]:
    """``ok``, or the name of the error."""
    try:
        yield from steps
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return OK


@dataclass(frozen=True, slots=True)
class _Range(Operation):
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
class Write(_Range):
    """The CPU fills pages with ``value``."""

    value: int = 0

    def run(self, bed: Testbed) -> Steps[Any]:
        for page in range(self.page, self.page + self.pages):
            write = bed.process(self.mm).mm.copy_to_user(bed.at(self.area, page), bytes([self.value]) * PAGE)
            status = yield from _try(write)
            if status != OK:
                return status
        return OK

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return _until_failed(key, result in (OK, None), [partial(store, key=k, value=self.value) for k in self.keys()])

    def code(self) -> list[str]:
        return [self.here(f"fill({self.place()}, {self.value})")]


@dataclass(frozen=True, slots=True)
class Read(_Range):
    """The CPU looks at pages."""

    def run(self, bed: Testbed) -> Steps[Any]:
        from nicemu.check.testbed import uniform

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
class Munmap(_Range):
    """``munmap``."""

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from _try(bed.process(self.mm).munmap(bed.at(self.area, self.page), self.pages * PAGE)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(_unmap, key=k) for k in self.keys()]

    def code(self) -> list[str]:
        return [self.here(f"munmap({self.place()})")]


@dataclass(frozen=True, slots=True)
class Madvise(_Range):
    """``madvise``; of the advices MADV_DONTNEED (4) and MADV_FREE (8) change contents."""

    advice: int = 4

    def run(self, bed: Testbed) -> Steps[Any]:
        process = bed.process(self.mm)
        return (yield from _try(process.madvise(bed.at(self.area, self.page), self.pages * PAGE, self.advice)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        change = {4: discard, 8: free_lazily}.get(self.advice)
        return [partial(change, key=k) for k in self.keys()] if change is not None else []

    def code(self) -> list[str]:
        return [self.here(f"madvise({self.place()}, {self.advice})")]


@dataclass(frozen=True, slots=True)
class Mprotect(_Range):
    """``mprotect``."""

    prot: int = 1

    def run(self, bed: Testbed) -> Steps[Any]:
        process = bed.process(self.mm)
        return (yield from _try(process.mprotect(bed.at(self.area, self.page), self.pages * PAGE, self.prot)))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(_protect, key=k, prot=self.prot) for k in self.keys()] if result in (OK, None) else []

    def code(self) -> list[str]:
        return [self.here(f"mprotect({self.place()}, {self.prot})")]


def _protect(state: State, key: Any, prot: int) -> bool:
    if key in state:
        state[key] = state[key]._replace(prot=prot)
    return True


@dataclass(frozen=True, slots=True)
class Mremap(_Range):
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
        return [partial(_move, key=k, new=(self.mm, self.to, k[2])) for k in self.keys()]

    def code(self) -> list[str]:
        return [f"{self.to} = mremap({self.place()}, {self.pages + 1} * PAGE)"]


def _unmap(state: State, key: Any) -> bool:
    state.pop(key, None)
    return True


def _move(state: State, key: Any, new: Any) -> bool:
    if key in state:
        state[new] = state.pop(key)
    return True


@dataclass(frozen=True, slots=True)
class Fork(Operation):
    """``fork``: the child is called ``child``."""

    child: str = "child"

    def run(self, bed: Testbed) -> Steps[Any]:
        bed.spaces[self.child] = yield from bed.lab.process.fork()
        return tuple(key[1:] for key in bed.pages() if key[0] == "")

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result is None:
            return [partial(_copy_all, child=self.child)]
        return [partial(_copy, key=("", *k), new=(self.child, *k)) for k in result]

    def code(self) -> list[str]:
        name = self.child
        return [f"{name} = os.fork()", f"while not {name}:", "    signal.pause()", f"children.append({name})"]


def _copy(state: State, key: Any, new: Any) -> bool:
    if key in state:
        state[new] = state[key]
    return True


def _copy_all(state: State, child: str) -> bool:
    pages: list[Any] = [key for key in state if _of("", key)]
    return all(_copy(state, key, (child, *key[1:])) for key in pages)


def _of(mm: str, key: Any) -> bool:
    """Is it a page of this address space?"""
    return len(key) == 3 and key[0] == mm


@dataclass(frozen=True, slots=True)
class Exit(Operation):
    """A child ends."""

    mm: str = "child"

    def run(self, bed: Testbed) -> Steps[Any]:
        process, bed.spaces[self.mm] = bed.spaces[self.mm], None
        yield from process.exit()
        return OK

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(_end, mm=self.mm)]

    def code(self) -> list[str]:
        return [f"os.kill({self.mm}, signal.SIGKILL)"]


def _end(state: State, mm: str) -> bool:
    for key in [key for key in state if _of(mm, key)]:
        del state[key]
    return True


@dataclass(frozen=True, slots=True)
class Kernel(Operation):
    """A step of the kernel that changes no contents: reclaim, migration, writeback, KSM, ..."""

    what: str
    steps: Callable[[Testbed], Steps[Any]]
    program: str = ""
    """A line that makes it likely on a real machine."""

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from _try(self.steps(bed)))

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


# Verbs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verbs(_Range):
    """A work request of the thread's own RC pair on (area, page, pages), awaited."""

    def run(self, bed: Testbed) -> Steps[Any]:
        pair = bed.pairs[bed.host.thread.name]
        self.prepare(bed, pair)
        status = yield bed.post(pair, *self.request())
        return (status, *self.observe(bed, pair))

    def prepare(self, bed: Testbed, pair: Any) -> None:
        """Fill the peer's buffer."""

    def request(self) -> tuple[WrOpcode, int, tuple[str, int, int], bool]:
        """Opcode, slot of the peer's buffer, range, is the range the remote side."""
        raise NotImplementedError

    def observe(self, bed: Testbed, pair: Any) -> tuple[Any, ...]:
        """What arrived in the peer's buffer."""
        return tuple(bed.peer_read(pair, self.page + i) for i in range(self.pages))


@dataclass(frozen=True, slots=True)
class _Store(Verbs):
    value: int = 0

    def prepare(self, bed: Testbed, pair: Any) -> None:
        for i in range(self.pages):
            bed.peer_write(pair, self.page + i, self.value + i)

    def observe(self, bed: Testbed, pair: Any) -> tuple[Any, ...]:
        return ()

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result[0] == FLUSHED:
            return []
        values = enumerate(self.keys(), self.value)
        stores = [partial(store, key=k, value=v & 255) for v, k in values]
        return _until_failed(key, result[0] == "SUCCESS", [partial(_through, self.area, part) for part in stores])


@dataclass(frozen=True, slots=True)
class RdmaWrite(_Store):
    """The peer writes ``value``, ``value`` + 1, ... to the pages."""

    def request(self) -> tuple[WrOpcode, int, tuple[str, int, int], bool]:
        return WrOpcode.RDMA_WRITE, self.page, (self.area, self.page, self.pages), True

    def code(self) -> list[str]:
        return [f"rdma_write({self.place()}, {self.value})"]


@dataclass(frozen=True, slots=True)
class Scatter(_Store):
    """An RDMA READ whose data goes to the pages: the requester's own ODP memory."""

    def request(self) -> tuple[WrOpcode, int, tuple[str, int, int], bool]:
        return WrOpcode.RDMA_READ, self.page, (self.area, self.page, self.pages), False

    def code(self) -> list[str]:
        return [f"scatter({self.place()}, {self.value})"]


@dataclass(frozen=True, slots=True)
class _Load(Verbs):
    def prepare(self, bed: Testbed, pair: Any) -> None:
        for i in range(self.pages):
            bed.peer_write(pair, self.page + i, 255)

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result[0] == FLUSHED:
            return []
        if result[0] != "SUCCESS":
            reads = [partial(readable, key=k) for k in self.keys()]
            return _until_failed(key, False, [partial(_through, self.area, part) for part in reads])
        return [partial(loads, key=k, value=v) for k, v in zip(self.keys(), result[1:], strict=True)]


@dataclass(frozen=True, slots=True)
class RdmaRead(_Load):
    """The peer reads the pages."""

    def request(self) -> tuple[WrOpcode, int, tuple[str, int, int], bool]:
        return WrOpcode.RDMA_READ, self.page, (self.area, self.page, self.pages), True

    def code(self) -> list[str]:
        return [f"rdma_read({self.place()})"]


@dataclass(frozen=True, slots=True)
class Gather(_Load):
    """An RDMA WRITE that sends the pages: the requester's own ODP memory."""

    def request(self) -> tuple[WrOpcode, int, tuple[str, int, int], bool]:
        return WrOpcode.RDMA_WRITE, self.page, (self.area, self.page, self.pages), False

    def code(self) -> list[str]:
        return [f"gather({self.place()})"]


def _through(area: str, part: Effect, state: State) -> bool:
    """An effect of the device, which needs the area's MR."""
    return state.get((area, "MR"), True) and part(state)


def _until_failed(key: Any, succeeded: bool, parts: Sequence[Effect]) -> list[Effect]:
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
class Prefetch(_Range):
    """``advise_mr``: the driver maps pages before the device asks. ``advice`` 1: for writing."""

    advice: int = 1

    def run(self, bed: Testbed) -> Steps[Any]:
        sge = ((bed.at(self.area, self.page), self.pages * PAGE, bed.mrs[self.area].lkey),)
        return (yield from _try(bed.lab.endpoint.dispatcher.run(m.AdviseMr(bed.pd, self.advice, 1, sge))))

    def code(self) -> list[str]:
        return [f"advise_mr({self.place()}, {self.advice})"]


@dataclass(frozen=True, slots=True)
class RegMr(Operation):
    """Register an area on demand."""

    area: str

    def run(self, bed: Testbed) -> Steps[Any]:
        address, length = bed.at(self.area), bed.lengths[self.area]
        access = int(Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND)
        command = m.RegMr(bed.pd, address, length, access, address)
        bed.mrs[self.area] = yield from bed.lab.endpoint.dispatcher.run(command)
        return OK

    def code(self) -> list[str]:
        return [f"register({self.area}, pages_of[{self.area!r}])"]


@dataclass(frozen=True, slots=True)
class DeregMr(Operation):
    """Deregister it."""

    area: str

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from _try(bed.lab.endpoint.dispatcher.run(m.DeregMr(bed.mrs[self.area].handle))))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(_without_mr, area=self.area)]

    def code(self) -> list[str]:
        return [f"mrs.pop({self.area})[0].close()"]


def _without_mr(state: State, area: str) -> bool:
    state[area, "MR"] = False
    return True


@dataclass(frozen=True, slots=True)
class Guest(_Range):
    """Other subscribers reach the pages through translations of their own: each faults them in."""

    write: bool = True

    def run(self, bed: Testbed) -> Steps[Any]:
        for page in range(self.page, self.page + self.pages):
            for each in bed.subscribers:
                yield from _try(each.access(bed.at(self.area, page), self.write))
        return OK

    def code(self) -> list[str]:
        return ["pass  # a virtual machine or another partition uses the pages"]
