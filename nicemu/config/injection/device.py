"""Faults between driver and device: doorbells, commands, translations, page faults, interrupts, packets."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nicemu.config.fabric_profile import Impairment
from nicemu.config.injection.rules import Counted, OfNic
from nicemu.config.types import Count, Nanoseconds

FIRST_COMPLETION_VECTOR = 4
"""MSI-X vectors: 1 commands, 2 async events, 3 page faults, 4 and up completions."""
Vector = Annotated[int, Field(ge=1, le=67)]

CommandName = Literal[
    "CREATE_MKEY", "DESTROY_MKEY", "MODIFY_MKEY", "CREATE_CQ", "DESTROY_CQ", "RESIZE_CQ", "MODIFY_CQ", "CREATE_QP",
    "MODIFY_QP", "QUERY_QP", "DESTROY_QP", "UPDATE_MTT", "ZAP_MTT", "PAGE_FAULT_RESUME", "CREATE_SRQ", "MODIFY_SRQ",
    "QUERY_SRQ", "DESTROY_SRQ", "RESIZE_SRQ", "CREATE_AH", "DESTROY_AH", "ATTACH_MCAST", "DETACH_MCAST", "SET_GID",
    "ALLOC_DM", "FREE_DM", "CREATE_FLOW", "DESTROY_FLOW", "CREATE_RQT", "DESTROY_RQT", "PLACE_RINGS",
]  # fmt: skip
"""Names of nicemu.abi.command.Command."""

StatusName = Literal["BAD_OPCODE", "BAD_PARAM", "BAD_RESOURCE", "NO_MEMORY", "BAD_STATE", "INTERNAL_ERROR"]
"""Names of nicemu.abi.command.Status."""


class DoorbellLoss(OfNic, Counted):
    """A write to a doorbell register does not arrive."""

    boundary = "host to device (MMIO)"
    hardware = "posted requests lie in the ring until the next doorbell of the queue; a lost arm: no more events"
    here = "the same; a program that waits in vain is told by the watchdog"
    source = "PCIe posted writes have no answer; producer counters are in memory, so the next doorbell tells all"

    event: Literal["doorbell_loss"]
    kind: Literal["send", "recv", "cq_arm", "eq_arm", "command", "tag_ops"] = "send"

    @property
    def detail(self) -> str:
        return self.kind

    @property
    def occasion(self) -> str:
        return f"a doorbell of kind {self.kind}"


class CommandFault(OfNic, Counted):
    """A command goes wrong."""

    command: CommandName | None = None  # null: any

    @property
    def detail(self) -> str:
        return self.command or "any command"

    @property
    def occasion(self) -> str:
        return f"a command {self.command}" if self.command else "a command"


class CommandFailure(CommandFault):
    """The device refuses a command, which has no effect."""

    boundary = "driver to firmware (command queue)"
    hardware = "the verb fails with the errno of the status; a failed invalidation is ignored, a failed resume logged"
    here = "the same: BAD_PARAM EINVAL, NO_MEMORY ENOMEM, INTERNAL_ERROR EIO; the sanitizer tells of a failed ZAP_MTT"
    source = "mlx5 cmd.c (mlx5_cmd_check); odp.c: mlx5_ib_invalidate_range does not look at the answer"

    event: Literal["command_failure"]
    status: StatusName = "INTERNAL_ERROR"

    @property
    def detail(self) -> str:
        return f"{self.command or 'any command'} {self.status}"


class CommandTimeout(CommandFault):
    """The device never answers a command, which has no effect."""

    boundary = "driver to firmware (command queue)"
    hardware = "ETIMEDOUT after 60 s, and 5 s in which the driver looks for a lost event; the command's slot is lost"
    here = "the same, in virtual time"
    source = "mlx5 cmd.c (wait_func, wait_func_handle_exec_timeout), lib/tout.c: CMD 60,000 ms"

    event: Literal["command_timeout"]


class IotlbPoison(OfNic, Counted):
    """A line of the IOTLB is wrong: `foreign`, it leads to another page that the device may reach; `stale`, an
    invalidation of the page does not reach it."""

    boundary = "device (translation cache)"
    hardware = "DMA to or from the wrong page: silent corruption, of which nothing tells"
    here = "the same bytes go wrong; the DMA sanitizer reports mistranslated, or invalidated"
    source = "a model of our own: a bit error in the cache, a lost flush"

    event: Literal["iotlb_poison"]
    translation: Literal["foreign", "stale"] = "foreign"
    mr: Count | None = None  # number of the region, as in --stats; null: any
    page: Annotated[int, Field(ge=0, le=2**36)] = 0  # of the region

    @property
    def detail(self) -> str:
        return f"{self.translation} page {self.page} of " + ("any MR" if self.mr is None else f"MR {self.mr}")

    @property
    def occasion(self) -> str:
        what = "a send doorbell while the device has" if self.translation == "foreign" else "an invalidation of"
        return f"{what} page {self.page} of " + ("an MR" if self.mr is None else f"MR {self.mr}")


class PageFaultFault(OfNic, Counted):
    """The handling of a device page fault goes wrong."""

    boundary = "device to driver (page faults)"

    @property
    def occasion(self) -> str:
        return "a page fault"


class PageFaultSlow(PageFaultFault):
    """The driver is late with a page fault."""

    hardware = "the QP is suspended longer; peers see RNR NAKs, or time out"
    here = "the same"
    source = "ASPLOS'17 NPF: a QP is suspended while its fault is open"

    event: Literal["page_fault_slow"]
    extra_ns: Nanoseconds


class PageFaultFail(PageFaultFault):
    """The driver cannot resolve a page fault and resumes the QP with an error."""

    hardware = "the request fails: LOC_PROT_ERR at the requester, REM_ACCESS_ERR or REM_OP_ERR from the responder"
    here = "the same, as for memory that is not mapped (docs/errors.md)"
    source = "mlx5 odp.c: a fault that cannot be resolved is resumed with an error"

    event: Literal["page_fault_fail"]


class PageFaultLost(PageFaultFault):
    """The event of a page fault is lost: nobody resolves it."""

    hardware = "the QP is suspended for ever; a READ or WRITE of a peer ends with RETRY_EXC_ERR or waits as well"
    here = "the same; with nothing left to run the watchdog names the suspended QP"
    source = "a model of our own: an event that an overrun or a bug drops"

    event: Literal["page_fault_lost"]


class InterruptFault(OfNic, Counted):
    """An MSI-X message goes wrong. Vectors: 1 commands, 2 async events, 3 page faults, 4 and up completions."""

    boundary = "device to host (MSI-X)"

    vector: Vector

    @property
    def detail(self) -> str:
        return f"vector {self.vector}"

    @property
    def occasion(self) -> str:
        return f"a message of vector {self.vector}"


class LoseInterrupt(InterruptFault):
    """A message is lost on its way."""

    hardware = "nobody reads the event queue until its next message, which comes only if it is armed: who waits, hangs"
    here = "the same; the watchdog says which vector lost what and who waits"
    source = "mlx5 cmd.c (mlx5_cmd_eq_recover) exists for this"

    event: Literal["lose_interrupt"]


class LateInterrupt(InterruptFault):
    """A message comes later; events meanwhile go with it."""

    hardware = "latency of a completion event, a command or a page fault grows"
    here = "the same"
    source = "a model of our own: a host that is busy elsewhere"

    event: Literal["late_interrupt"]
    delay_ns: Annotated[int, Field(ge=1, le=10**12)]


class PacketFault(Impairment):
    """A packet on the wire: the fields of `impairments:`."""

    boundary: ClassVar[str] = "NIC to NIC (links)"
    hardware: ClassVar[str] = "retransmission, RETRY_EXC_ERR, a lost datagram, BAD_RESP_ERR, by what is hit"
    here: ClassVar[str] = "the same; the capture marks the packet"
    source: ClassVar[str] = "docs/wire.md, docs/errors.md"

    event: Literal["packet"]
    must_fire: bool = True

    @property
    def detail(self) -> str:
        """What happens to it."""
        return self.title
