"""Memory windows: bound by work requests of the side whose memory they open."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyverbs import enums as e
from pyverbs.mr import MW, MWBind, MWBindInfo
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.wr import SendWR

from .failures import PATIENT, gather
from .memory import PAGE, Region, Remote
from .sides import Side, SideQP, atomic, pair, read, write

RIGHTS = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
BINDABLE = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_MW_BIND
"""Of a region that the peer reaches through windows only."""
TYPE_1, TYPE_2 = e.IBV_MW_TYPE_1, e.IBV_MW_TYPE_2
PAGES = 4


_made: list[Any] = []


def window(side: Side, kind: int, pd: Any = None) -> Any:
    """A new window, closed after the test; the test is skipped where there is none of this type."""
    try:
        _made.append(MW(pd or side.pd, kind))
        return _made[-1]
    except PyverbsRDMAError as error:
        if error.error_code in (errno.EOPNOTSUPP, errno.EINVAL):
            pytest.skip(f"the device has no memory windows of type {kind}")
        raise


class Windows:
    """A of near asks; B of far binds windows over `target`, `PAGES` long, which A's `source` is as long as."""

    def __init__(self, near: Side, far: Side, access: int = BINDABLE, **changes: Any) -> None:
        self.near, self.far = near, far
        self.a, self.b = pair(near, far, **{**PATIENT, **changes})
        self.source, self.target = near.region(PAGES), far.region(PAGES, access)
        self.source.fill(1), self.target.fill(2)
        self.before = self.source.bytes(), self.target.bytes()

    def bind(self, mw: Any, start: int = 0, length: int = PAGE, rights: int = RIGHTS, region: Region | None = None,
             qp: SideQP | None = None) -> tuple[str, int]:  # fmt: skip
        """Bind bytes of the target (or `region`): the status, and the window's key if it is a success."""
        over = region or self.target
        info = MWBindInfo(over.mr, over.address + start, length, rights)
        binder = qp or self.b
        if mw.type == TYPE_1:
            binder.bind_mw(mw, MWBind(info, e.IBV_SEND_SIGNALED, 70))
            return self.one(binder.side, 70), int(mw.rkey)
        wr = SendWR(wr_id=70, opcode=e.IBV_WR_BIND_MW, send_flags=e.IBV_SEND_SIGNALED)
        wr.set_bind_wr(mw, info)
        binder.post_send(wr)
        return self.one(binder.side, 70), int(wr.rkey)

    def invalidate(self, rkey: int, qp: SideQP | None = None) -> str:
        """LOCAL_INV by B; the status."""
        wr = SendWR(wr_id=71, opcode=e.IBV_WR_LOCAL_INV, imm_data=rkey, send_flags=e.IBV_SEND_SIGNALED)
        (qp or self.b).post_send(wr)
        return self.one((qp or self.b).side, 71)

    @staticmethod
    def one(side: Side, wr_id: int) -> str:
        """Status of the completion of this request; nothing else comes, but flushes behind an error."""
        (seen, name), *rest = gather(side.cq, 1, quiet=2)
        assert seen == wr_id
        assert not rest, rest
        return name

    def ask(self, operation: str, rkey: int, at: int = 0, length: int = 8, qp: SideQP | None = None) -> str:
        """A's request for bytes of the target from `at`; the status."""
        asks, remote = qp or self.a, Remote(self.target.address + at, rkey)
        if operation == "atomic":
            atomic(asks, self.source.sge(0, 8), remote, add=1, wr_id=1)
        else:
            {"write": write, "read": read}[operation](asks, self.source.sge(0, length), remote, wr_id=1)
        return self.one(asks.side, 1)

    def nothing_changed(self) -> None:
        assert (self.source.bytes(), self.target.bytes()) == self.before


@pytest.fixture
def windows(near: Side, far: Side) -> Iterator[Callable[..., Windows]]:
    """Makes Windows. Windows are closed before their QPs and regions: rxe's destroy_qp waits for a window that is
    bound to the QP, for minutes."""
    yield lambda **options: Windows(near, far, **options)
    while _made:
        _made.pop().close()
