"""What driver and library make of a device: on-demand paging by transport, verbs that they lack, their habits."""

from typing import Annotated, Literal

from pydantic import Field

from nicemu.config.types import Record

OdpOperation = Literal["send", "recv", "write", "read", "atomic", "srq_recv", "flush", "atomic_write"]
Operations = Annotated[tuple[OdpOperation, ...], Field(strict=False)]
ALL: Operations = ("send", "recv", "write", "read", "atomic", "srq_recv", "flush", "atomic_write")

DeviceFlag = Literal["AUTO_PATH_MIG", "CHANGE_PHY_PORT", "CURR_QP_STATE_MOD"]
"""Names of ``ibv_device_cap_flags`` that say nothing which anybody here does."""

Feature = Literal[
    # verbs
    "advise_mr", "alloc_dm", "alloc_null_mr", "alloc_parent_domain", "create_flow", "create_wq", "import_device",
    "modify_cq", "open_xrcd", "query_rt_values", "reg_dmabuf_mr", "rereg_mr",
    # parts of them: CQs with IGNORE_OVERRUN, completions with more than IBV_WC_STANDARD_FLAGS, access flags of regions
    "ignore_overrun", "wc_extensions", "zero_based", "persistent_memory",
]  # fmt: skip


Defect = Literal["page_offset", "window_bounds", "window_owner", "controlled_qkey", "late_elements"]
"""What a device does wrong; :class:`nicemu.nic.defects.Defect` says what each is."""


class OdpProfile(Record):
    """Which operations may touch on-demand memory, as `ibv_query_device_ex` tells it; none for UC."""

    implicit: bool = True  # a region may be the whole address space
    rc: Operations = ALL
    ud: Operations = ("send", "srq_recv")
    xrc: Operations = ("send", "write", "read", "atomic", "srq_recv", "flush", "atomic_write")


class SoftwareProfile(Record):
    """Choices of a device's driver and library that programs can see."""

    lacks: Annotated[tuple[Feature, ...], Field(strict=False)] = ()  # EOPNOTSUPP; of persistent_memory EINVAL
    power_of_two_queues: bool = False  # as many requests as fit a ring of a power of two, and one slot stays free
    rounds_up_reads: bool = False  # max_rd_atomic and max_dest_rd_atomic become powers of two
    inline_shares_sges: bool = False  # SGEs and inline data of a send request have the same room, and all of it
    path_mtu_up_to_max: bool = False  # a path MTU above the port's active one is accepted
    always_tells_drained: bool = False  # SQ_DRAINED comes whether asked for or not
    forgets_sends: bool = False  # sends posted in SQD, or before RTS though refused, are executed with the next in RTS
    posts_any_opcode: bool = False  # the library lets a UC QP post what only RC can; it fails when executed
    gathers_for_reading: bool = False  # a page missing at a sender is faulted in for reading, be its region writable
    takes_any_value: bool = False  # modify QP does not look whether a value fits its field; it is cut to what does
    arms_new_srqs: bool = False  # the limit given when an SRQ is made is armed
    checks_atomics: bool = False  # the library refuses an atomic that is not aligned or shorter than 8 bytes
