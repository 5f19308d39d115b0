"""Memory windows."""

from __future__ import annotations

from nicemu.pyverbs._fields import U32, expect
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs._text import lines
from nicemu.pyverbs.libibverbs_enums import ibv_mw_type
from nicemu.pyverbs.pd import PD
from nicemu.uverbs import memory_messages


class MW(Resource):
    """A memory window of type 1 or 2 (`ibv_mw_type`): it opens part of an MR to remote access once it is bound.

    PyverbsRDMAError: EINVAL (no such type), ENOMEM.
    """

    __slots__ = ("_pd", "_rkey", "_type")
    KIND = "mws"

    def __init__(self, pd: PD, mw_type: int) -> None:
        expect(pd, PD, "pd")
        super().__init__()
        self._kernel = pd._kernel
        self._type = U32(mw_type)
        response = self._execute(memory_messages.AllocMw(pd._opened(), self._type), "Failed to allocate MW")
        self._handle, self._rkey = response.handle, response.rkey
        self._pd: PD | None = pd
        self._attach(pd)

    def _destroy(self, handle: int) -> None:
        self._execute(memory_messages.DeallocMw(handle), "Failed to dealloc MW")

    def _release(self) -> None:
        self._pd = None

    @property
    def handle(self) -> int:
        """The kernel's handle."""
        return self._opened()

    @property
    def rkey(self) -> int:
        """The key for remote access. `QP.bind_mw` changes it; a work request that binds gives its own, which the
        program keeps."""
        self._opened()
        return int(self._rkey)

    @property
    def type(self) -> ibv_mw_type:
        """The window's type."""
        self._opened()
        return ibv_mw_type(self._type)

    def __str__(self) -> str:
        rows = [("Rkey", self.rkey), ("Handle", self.handle), ("MW Type", mwtype2str(self.type))]
        return "MW:\n" + lines(rows)


def mwtype2str(mw_type: int) -> str:
    """The C name of an `ibv_mw_type`."""
    return {1: "IBV_MW_TYPE_1", 2: "IBV_MW_TYPE_2"}.get(mw_type, f"Unknown MW type ({mw_type})")
