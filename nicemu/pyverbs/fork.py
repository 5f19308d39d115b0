"""Fork support."""

from nicemu.pyverbs.libibverbs_enums import ibv_fork_status
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError

__all__ = ["PyverbsRDMAError", "fork_init", "is_fork_initialized"]


def fork_init() -> None:
    """Prepare for fork: nothing to do, the emulated device follows the parent's pages."""


def is_fork_initialized() -> ibv_fork_status:
    """IBV_FORK_UNNEEDED, as on kernels that copy pinned pages at fork."""
    return ibv_fork_status.IBV_FORK_UNNEEDED
