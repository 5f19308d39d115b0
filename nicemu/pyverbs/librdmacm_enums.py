"""The connection manager's enums as pyverbs 59 lays them out."""

from nicemu.pyverbs._enums_cm import *  # noqa: F403

RAI_PASSIVE, RAI_NUMERICHOST, RAI_NOROUTE, RAI_FAMILY = 1, 2, 4, 8
RDMA_OPTION_ID = 0
RDMA_OPTION_ID_ACK_TIMEOUT = 3
