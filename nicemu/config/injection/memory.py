"""Faults of the mm: no memory, a bad disk under swap, bad RAM."""

from typing import Annotated, Literal

from pydantic import Field

from nicemu.config.injection.rules import Counted, Timed
from nicemu.config.types import Count, Nanoseconds


class AllocationFailure(Counted):
    """The kernel has no page to give."""

    boundary = "mm (page allocator)"
    hardware = "ENOMEM from the verb or system call; a page fault of the device fails as page_fault_fail"
    here = "the same"
    source = "Linux: hmm_range_fault and pin_user_pages give ENOMEM (recalled)"

    event: Literal["allocation_failure"]
    operation: Annotated[str, Field(max_length=40)] | None = None  # only inside this: fault, madvise ...; null: any

    @property
    def detail(self) -> str:
        return f"in {self.operation}" if self.operation else ""

    @property
    def occasion(self) -> str:
        return "an allocation of pages" + (f" in {self.operation}" if self.operation else "")


class SwapFault(Counted):
    """The swap device goes wrong."""

    boundary = "mm (swap)"

    @property
    def occasion(self) -> str:
        return "a read from swap"


class SwapReadError(SwapFault):
    """A page cannot be read back; it stays in swap, so the next try can go well."""

    hardware = "SIGBUS for the program; EFAULT for system calls and drivers, so a device's page fault fails"
    here = "the same, with an exception in place of the signal"
    source = "mm/memory.c do_swap_page: not up to date, VM_FAULT_SIGBUS"

    event: Literal["swap_read_error"]


class SlowSwap(SwapFault):
    """Reading pages back takes longer."""

    hardware = "major faults take longer, a device's as well"
    here = "the same"
    source = "a model of our own: a busy disk"

    event: Literal["slow_swap"]
    extra_ns: Nanoseconds


class MemoryFailure(Timed):
    """The memory under a page of a region fails, for good; with `soft` it is about to."""

    boundary = "mm (machine check)"
    hardware = "SIGBUS for the program, a failed page fault for the device; soft: the page moves and nobody notices"
    here = "the same, for `memory: model`; pinned pages stay with the device"
    source = "mm/memory-failure.c; docs/memory.md"

    event: Literal["memory_failure"]
    mr: Count = 1
    page: Annotated[int, Field(ge=0, le=2**36)] = 0
    soft: bool = False

    @property
    def detail(self) -> str:
        return f"page {self.page} of MR {self.mr}"


class OomKill(Timed):
    """The OOM killer runs although there is memory (sysrq f)."""

    boundary = "mm (OOM killer)"
    hardware = "the process with the highest score dies"
    here = "the program is dead to the model from then on: ENOMEM from its calls, if `host.oom_kills_program`"
    source = "mm/oom_kill.c; docs/reclaim.md"

    event: Literal["oom_kill"]
