"""The operations of scenarios that are verbs: work requests on on-demand memory, registration, prefetch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from nicemu.abi.verbs import Access, WrOpcode
from nicemu.check.operations import OK, PAGE, Range, attempted
from nicemu.check.reference import Effect, loads, readable, store, through_mr, until_failed, without_mr
from nicemu.check.scenario import Operation
from nicemu.timeline.host import Steps
from nicemu.uverbs import memory_messages as mem

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed

FLUSHED = "WR_FLUSH_ERR"


@dataclass(frozen=True, slots=True)
class Verbs(Range):
    """A work request of the thread's own RC pair on (area, page, pages), awaited."""

    opcode: ClassVar[WrOpcode]
    remote: ClassVar[bool]
    """The range is the remote side; else it is the requester's own."""
    call: ClassVar[str]
    """Its name in an exported program."""

    def run(self, bed: Testbed) -> Steps[Any]:
        pair = bed.pairs[bed.host.thread.name]
        self.prepare(bed, pair)
        target = self.area, self.page, self.pages
        status = yield bed.post(pair, self.opcode, self.page, target, self.remote)
        return (status, *self.observe(bed, pair))

    def prepare(self, bed: Testbed, pair: Any) -> None:
        """Fill the peer's buffer."""

    def observe(self, bed: Testbed, pair: Any) -> tuple[Any, ...]:
        """What arrived in the peer's buffer."""
        return tuple(bed.peer_read(pair, self.page + i) for i in range(self.pages))


@dataclass(frozen=True, slots=True)
class _Store(Verbs):
    value: int = 0

    def code(self) -> list[str]:
        return [f"{self.call}({self.place()}, {self.value})"]

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
        return until_failed(key, result[0] == "SUCCESS", [partial(through_mr, self.area, part) for part in stores])


@dataclass(frozen=True, slots=True)
class RdmaWrite(_Store):
    """The peer writes ``value``, ``value`` + 1, ... to the pages."""

    opcode, remote, call = WrOpcode.RDMA_WRITE, True, "rdma_write"


@dataclass(frozen=True, slots=True)
class Scatter(_Store):
    """An RDMA READ whose data goes to the pages: the requester's own ODP memory."""

    opcode, remote, call = WrOpcode.RDMA_READ, False, "scatter"


@dataclass(frozen=True, slots=True)
class _Load(Verbs):
    def code(self) -> list[str]:
        return [f"{self.call}({self.place()})"]

    def prepare(self, bed: Testbed, pair: Any) -> None:
        for i in range(self.pages):
            bed.peer_write(pair, self.page + i, 255)

    def effects(self, key: Any, result: Any) -> list[Effect]:
        if result[0] == FLUSHED:
            return []
        if result[0] != "SUCCESS":
            reads = [partial(readable, key=k) for k in self.keys()]
            return until_failed(key, False, [partial(through_mr, self.area, part) for part in reads])
        return [partial(loads, key=k, value=v) for k, v in zip(self.keys(), result[1:], strict=True)]


@dataclass(frozen=True, slots=True)
class RdmaRead(_Load):
    """The peer reads the pages."""

    opcode, remote, call = WrOpcode.RDMA_READ, True, "rdma_read"


@dataclass(frozen=True, slots=True)
class Gather(_Load):
    """An RDMA WRITE that sends the pages: the requester's own ODP memory."""

    opcode, remote, call = WrOpcode.RDMA_WRITE, False, "gather"


@dataclass(frozen=True, slots=True)
class Prefetch(Range):
    """``advise_mr``: the driver maps pages before the device asks. ``advice`` 1: for writing."""

    advice: int = 1

    def run(self, bed: Testbed) -> Steps[Any]:
        sge = ((bed.at(self.area, self.page), self.pages * PAGE, bed.mrs[self.area].lkey),)
        return (yield from attempted(bed.lab.endpoint.dispatcher.run(mem.AdviseMr(bed.pd, self.advice, 1, sge))))

    def code(self) -> list[str]:
        return [f"advise_mr({self.place()}, {self.advice})"]


@dataclass(frozen=True, slots=True)
class RegMr(Operation):
    """Register an area on demand."""

    area: str

    def run(self, bed: Testbed) -> Steps[Any]:
        address, length = bed.at(self.area), bed.lengths[self.area]
        access = int(Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ | Access.ON_DEMAND)
        command = mem.RegMr(bed.pd, address, length, access, address)
        bed.mrs[self.area] = yield from bed.lab.endpoint.dispatcher.run(command)
        return OK

    def code(self) -> list[str]:
        return [f"register({self.area}, pages_of[{self.area!r}])"]


@dataclass(frozen=True, slots=True)
class DeregMr(Operation):
    """Deregister it."""

    area: str

    def run(self, bed: Testbed) -> Steps[Any]:
        return (yield from attempted(bed.lab.endpoint.dispatcher.run(mem.DeregMr(bed.mrs[self.area].handle))))

    def effects(self, key: Any, result: Any) -> list[Effect]:
        return [partial(without_mr, area=self.area)]

    def code(self) -> list[str]:
        return [f"mrs.pop({self.area})[0].close()"]
