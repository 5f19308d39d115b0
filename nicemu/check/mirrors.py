"""The other subscribers of a scenario: secondary MMUs beside the RDMA driver."""

from __future__ import annotations

from typing import Any

from nicemu.mm.locks import Mutex, SpinLock
from nicemu.secondary_mmu.kvm import Kvm
from nicemu.secondary_mmu.xpmem import Xpmem


def mirror(bed: Any, name: str) -> Any:
    """Register one by its name in :class:`nicemu.check.scenario.Scenario`."""
    each: Any = Xpmem(bed.mm) if name == "xpmem" else Kvm(bed.mm, Mutex if name == "kvm-mutex" else SpinLock)
    bed.now(bed.mm.notifiers.register(each), "register")
    return each
