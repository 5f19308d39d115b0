"""Faults at the program's side: verbs that fail, requests that change in their ring."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nicemu.config.injection.rules import Counted, OfNic

Call = Literal[
    "open_device", "query_device", "query_port", "query_gid", "query_pkey", "alloc_pd", "dealloc_pd", "reg_mr",
    "rereg_mr", "dereg_mr", "reg_null_mr", "reg_dm_mr", "reg_dmabuf_mr", "advise_mr", "alloc_mw", "dealloc_mw",
    "alloc_dm", "free_dm", "create_ah", "destroy_ah", "create_comp_channel", "destroy_comp_channel", "create_cq",
    "resize_cq", "modify_cq", "destroy_cq", "create_qp", "modify_qp", "query_qp", "destroy_qp", "attach_mcast",
    "detach_mcast", "create_srq", "modify_srq", "query_srq", "destroy_srq", "open_xrcd", "close_xrcd", "create_wq",
    "modify_wq", "destroy_wq", "create_flow", "destroy_flow",
]  # fmt: skip
"""Verbs that reach the kernel, by the names of their messages in nicemu.uverbs."""

ErrnoName = Literal[
    "EPERM", "ENOENT", "EINTR", "EIO", "EAGAIN", "ENOMEM", "EACCES", "EFAULT", "EBUSY", "ENODEV", "EINVAL", "ENOSPC",
    "ENOSYS", "EOPNOTSUPP", "ETIMEDOUT",
]  # fmt: skip

WqeFieldName = Literal[
    "opcode", "flags", "num_sge", "imm", "remote_addr", "rkey", "inline_length", "addr", "length", "lkey"
]  # fmt: skip
"""Of a send WQE's header, and of a scatter/gather element; a receive WQE has num_sge and the elements."""
SEND_HEADER = ("opcode", "flags", "imm", "remote_addr", "rkey", "inline_length")


class VerbsError(Counted):
    """A verb fails and does nothing."""

    boundary = "program to kernel (uverbs)"
    hardware = "the verb fails with the errno: no memory, no permission, a signal, a driver that refuses"
    here = "PyverbsRDMAError with that `error_code`; the driver was not asked"
    source = "ibv_* return values (verbs.h)"

    event: Literal["verbs_error"]
    call: Call
    errno: ErrnoName

    @property
    def detail(self) -> str:
        return f"{self.call} {self.errno}"

    @property
    def occasion(self) -> str:
        return f"a call of {self.call}"


class WqeCorrupt(OfNic, Counted):
    """A posted request is changed in its ring, before the device fetches it."""

    boundary = "program to device (rings)"
    hardware = (
        "a scribble over the ring: the request is another one, or invalid; LOC_PROT_ERR, LOC_QP_OP_ERR, wrong data"
    )
    here = "the device executes what the ring says now"
    source = "the ring is the program's memory; statuses as in docs/errors.md"

    event: Literal["wqe_corrupt"]
    queue: Literal["send", "recv"] = "send"
    qpn: Annotated[int, Field(ge=0, le=2**24 - 1)] | None = None  # null: any
    field: WqeFieldName
    sge: Annotated[int, Field(ge=0, le=31)] = 0  # addr, length, lkey: of which element
    value: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    bit: Annotated[int, Field(ge=0, le=63)] | None = None

    @property
    def detail(self) -> str:
        return f"{self.queue} {self.field}" + ("" if self.qpn is None else f" of QP {self.qpn}")

    @property
    def occasion(self) -> str:
        return f"a posted {self.queue} request" + ("" if self.qpn is None else f" of QP {self.qpn}")

    @model_validator(mode="after")
    def _change_is_possible(self) -> Self:
        if (self.value is None) == (self.bit is None):
            raise ValueError("value: expected this or bit, one of them")
        if self.queue == "recv" and self.field in SEND_HEADER:
            raise ValueError("field: expected one of num_sge, addr, length, lkey in a receive request")
        return self
