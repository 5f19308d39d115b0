"""The other subscribers of a scenario: secondary MMUs beside the RDMA driver."""

from __future__ import annotations

from typing import Any


def mirror(bed: Any, name: str) -> Any:
    """Register one by its name in :class:`nicemu.check.scenario.Scenario`."""
    raise NotImplementedError(name)
