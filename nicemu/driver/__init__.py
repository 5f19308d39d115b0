"""The kernel side: RDMA objects, command queue, interrupts, page-fault work and invalidation (ib_core, mlx5)."""

from nicemu.driver.core import Driver, Options
from nicemu.driver.errors import DriverError

__all__ = ["Driver", "DriverError", "Options"]
