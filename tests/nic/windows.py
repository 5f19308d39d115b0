"""Memory windows on the bench."""

from __future__ import annotations

from nicemu.abi.command import Command, MkeyFlag
from nicemu.abi.rings import SEND_HEADER_BYTES, SEND_WQE
from nicemu.abi.verbs import Access, WrOpcode
from nicemu.nic import mw
from tests.nic.testbench import Bench, Mr, Qp, Ring

READ, WRITE, ATOMIC = Access.REMOTE_READ, Access.REMOTE_WRITE, Access.REMOTE_ATOMIC
ZERO_BASED, BIND, LOCAL = Access.ZERO_BASED, Access.MW_BIND, Access.LOCAL_WRITE
TYPES = {1: MkeyFlag.MW_TYPE_1, 2: MkeyFlag.MW_TYPE_2}
INDEX = 900


class Window:
    """A window of a type; ``key`` is its present R_Key. ``region`` is what it was bound to last."""

    def __init__(self, bench: Bench, kind: int, pd: int | None = None, index: int = INDEX) -> None:
        self.bench, self.kind, self.index, self.key = bench, kind, index, index << 8
        bench.command(
            Command.CREATE_MKEY, index, self.key, bench.pd if pd is None else pd, 0, 0, 0, TYPES[kind], 1000 + index
        )

    def bind(
        self, qp: Qp, region: Mr, offset: int = 0, length: int = 4096, access: int = READ | WRITE, **changes: int
    ) -> int:
        """BIND_MW on ``qp``: the status. ``new``: the new key; ``present``, ``lkey``, ``va``: what the WQE says."""
        new = changes.get("new", self.key & ~255 | (self.key + 1) & 255)
        wqe = Ring(SEND_HEADER_BYTES)
        SEND_WQE.pack_into(
            wqe.view, 0, 1, WrOpcode.BIND_MW, 0, 0, access, changes.get("va", region.va + offset), new, 0,
            changes.get("present", self.key), length, changes.get("lkey", region.key), 0,
        )  # fmt: skip
        status = int(mw.bind_mw(self.bench.world.address, row_of(qp), wqe.address))
        if status == 0:
            self.key = new
        return status

    def local_inv(self, qp: Qp, key: int | None = None) -> int:
        """LOCAL_INV on ``qp``: the status."""
        return int(mw.local_inv(self.bench.world.address, row_of(qp), self.key if key is None else key))

    def remote_inv(self, qp: Qp) -> bool:
        """A SEND with invalidate arrives for ``qp``."""
        return bool(mw.remote_inv(self.bench.world.address, row_of(qp), self.key))


def row_of(qp: Qp) -> int:
    """The QP's row."""
    return int(qp.bench.device.row.qp_base) + qp.number
