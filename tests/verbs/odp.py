"""What the ODP tests share: connections whose packets are whole pages, pages of a region, and what failed requests say.

rxe copies on-demand memory rightly only in packets that begin on a page and stay in it (test_odp_offsets.py shows it):
ODP tests use the widest path MTU of the port, whole pages, and page-aligned addresses, so that devices can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from pyverbs import enums as e

from .mappings import Mapping
from .memory import ALL, PAGE, Region, needs_on_demand
from .sides import PORT, RC, Side, SideQP, connect, read, recv, send, write
from .waiting import completions, status

MTU_BYTES = {e.IBV_MTU_256: 256, e.IBV_MTU_512: 512, e.IBV_MTU_1024: 1024, e.IBV_MTU_2048: 2048, e.IBV_MTU_4096: 4096}
FLUSHED = "recalled, IBA 11.6.2: a request whose own memory may not be used is a Local Protection Error; rxe flushes it"
RECEIVED = (
    "recalled, IBA 11.6.2: a receive whose memory may not be used is a Local Protection Error; "
    "rxe says Local QP Operation Error"
)
OPS = ("send", "write", "read")
MAPPERS = ("mem_alloc", "libc")


def join(a: SideQP, b: SideQP, **changes: Any) -> None:
    """Connect two QPs with the widest path MTU; `changes` as for `connect`."""
    needs_on_demand(a.side.context)
    mtu = a.side.context.query_port(PORT).active_mtu
    if MTU_BYTES[mtu] < PAGE:
        pytest.skip(f"packets of the port have {MTU_BYTES[mtu]} bytes: expected whole pages, an Ethernet MTU of 9000")
    connect(a, b, **{"path_mtu": mtu, "rnr_retry": 7, "timeout": 17, **changes})


def joined(near: Side, far: Side, kind: int = RC, **caps: Any) -> tuple[SideQP, SideQP]:
    """Two new QPs that are joined; `caps` as for Side.qp."""
    a, b = near.qp(kind, **caps), far.qp(kind, **caps)
    join(a, b)
    return a, b


def on_demand(near: Side, far: Side, pages: int, access: int = ALL) -> tuple[Region, Region]:
    """A region of each side, on demand and untouched."""
    return near.region(pages, access, odp=True), far.region(pages, access, odp=True)


def mapped(by: str, near: Side, far: Side, pages: int) -> tuple[Region, Region]:
    """As `on_demand`, of memory that pyverbs.mem_alloc maps or, of MAPPERS the other, the program by itself."""
    if by == "libc":
        return Mapping(near, pages), Mapping(far, pages)
    return on_demand(near, far, pages)


def page(data: bytes, number: int) -> bytes:
    """One page of what `Region.bytes` gives."""
    return data[number * PAGE : (number + 1) * PAGE]


def discard(region: Region, pages: Iterable[int]) -> None:
    for number in pages:
        region.discard(number * PAGE, PAGE)


def without(data: bytes, pages: Iterable[int]) -> bytes:
    """The same bytes with zeros in these pages."""
    parts = [page(data, number) for number in range(len(data) // PAGE)]
    for number in pages:
        parts[number] = bytes(PAGE)
    return b"".join(parts)


def transfer(op: str, ends: tuple[SideQP, SideQP], source: Region, target: Region, length: int | None = None) -> str:
    """Move `length` bytes (all) of a near region to a far one: send, write, or the far side reads.

    Gives the requester's status. A receive's comes from `outcome` of the far QP.
    """
    a, b = ends
    if op == "read":
        read(b, target.sge(0, length), source.remote())
        return outcome(b)
    if op == "send":
        recv(b, target.sge())
        send(a, source.sge(0, length))
    else:
        write(a, source.sge(0, length), target.remote())
    return outcome(a)


def outcome(qp: SideQP) -> str:
    """Status of the next completion on the CQ of the QP's side."""
    return status(completions(qp.side.cq, 1)[0])


def arrived(op: str, ends: tuple[SideQP, SideQP], source: Region, target: Region, length: int | None = None) -> None:
    """`transfer` that must succeed on both sides."""
    assert transfer(op, ends, source, target, length) == "SUCCESS"
    if op == "send":
        assert outcome(ends[1]) == "SUCCESS"


def filled(by: str, near: Side, far: Side, pages: int) -> tuple[tuple[SideQP, SideQP], Region, Region]:
    """Two connected ends and a `mapped` region of each that the device knows, with patterns 1 and 2."""
    ends = joined(near, far)
    source, target = mapped(by, near, far, pages)
    source.fill(1)
    arrived("write", ends, source, target)
    target.fill(2)
    return ends, source, target


def broke_off(target: Region, before: bytes, sent: bytes, bad: int) -> None:
    """A message that failed at page `bad` wrote none of the pages after it, and those before it whole or not at all.

    The bad page itself is not looked at: it may not be there.
    """
    for number in range(target.length // PAGE):
        if number != bad:
            now = target.bytes(number * PAGE, PAGE)
            allowed = (page(before, number), page(sent, number)) if number < bad else (page(before, number),)
            assert now in allowed, f"page {number} of a message that failed at page {bad}"
