"""The verbs enums as pyverbs 59 lays them out: members are reached through their class."""

from nicemu.pyverbs._enums_cq import *  # noqa: F403
from nicemu.pyverbs._enums_device import *  # noqa: F403
from nicemu.pyverbs._enums_flow import *  # noqa: F403
from nicemu.pyverbs._enums_memory import *  # noqa: F403
from nicemu.pyverbs._enums_qp import *  # noqa: F403

# What C declares without an enum name
IBV_LINK_LAYER_UNSPECIFIED, IBV_LINK_LAYER_INFINIBAND, IBV_LINK_LAYER_ETHERNET = 0, 1, 2
IBV_QPF_GRH_REQUIRED = 1
IBV_WC_STANDARD_FLAGS = 0x7F

_IBV_ADVISE_MR_ADVICE_PREFETCH = 0
_IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE = 1
_IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT = 2
_IBV_ADVISE_MR_FLAG_FLUSH = 1
_IBV_ALLOCATOR_USE_DEFAULT = 2**64 - 1
_IBV_DEVICE_PCI_WRITE_END_PADDING = 1 << 36
_IBV_DEVICE_RAW_SCATTER_FCS = 1 << 34
