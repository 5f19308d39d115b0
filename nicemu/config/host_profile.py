"""How much memory a host has and how long the steps of its kernel take (`configs/host/*.yaml`)."""

from typing import Annotated, Literal

from pydantic import Field

from nicemu.config.types import Count, Nanoseconds, Pages, Record, Spread


class HostCosts(Record):
    """Virtual nanoseconds per step of the kernel."""

    syscall_ns: Nanoseconds = 150
    fault_ns: Nanoseconds = 1_500  # a CPU fault, or handle_mm_fault called for the device
    fault_page_ns: Nanoseconds = 98  # each further page of a batch
    zero_page_ns: Nanoseconds = 200
    copy_page_ns: Nanoseconds = 400
    pte_ns: Nanoseconds = 5
    tlb_flush_ns: Nanoseconds = 500
    swap_read_ns: Nanoseconds = 60_000
    swap_write_ns: Nanoseconds = 20_000
    swap_page_ns: Nanoseconds = 1_300  # transfer of each page, beside the latency
    scan_page_ns: Nanoseconds = 50  # reclaim looks at a page of its list
    file_read_ns: Nanoseconds = 80_000  # one request of the page cache
    file_write_ns: Nanoseconds = 25_000
    dax_flush_ns: Nanoseconds = 300  # each page
    ksm_compare_ns: Nanoseconds = 400  # ksmd: checksum of a page, or two compared
    numa_remote_ns: Nanoseconds = 60  # a CPU access to a frame of another node, longer than a local one
    irq_ns: Nanoseconds = 1_000  # handler entered -> its work queued
    driver_fault_ns: Nanoseconds = 4_000  # the page-fault work, without faulting pages in
    driver_fault_page_ns: Nanoseconds = 90
    invalidate_check_ns: Nanoseconds = 2_800  # is anything of the range mapped by the device?
    invalidate_check_batch_ns: Nanoseconds = 0  # each further 64 pages of the range
    invalidate_page_ns: Nanoseconds = 11  # bookkeeping of each page
    invalidate_done_ns: Nanoseconds = 500


class HostProfile(Record):
    """One host profile; the defaults are those of `configs/host/linux.yaml`."""

    name: str = "linux"
    description: str = ""
    source: str = ""
    ram_pages: Pages = 262_144  # 4 KiB each: 1 GiB
    swap_pages: Annotated[int, Field(ge=0, le=2**36)] = 1_048_576
    swap_queue_depth: Count = 32  # requests that the swap device takes at once; more wait
    min_free_pages: Annotated[int, Field(ge=0, le=2**36)] | None = None  # vm.min_free_kbytes; None: Linux's rule
    kswapd: bool = True  # reclaim in the background below the low watermark
    rlimit_memlock_bytes: Annotated[int, Field(ge=0, le=2**63)] | None = None  # RLIMIT_MEMLOCK; None: unlimited
    cap_ipc_lock: bool = False  # the program may pin beyond RLIMIT_MEMLOCK
    memory_max_pages: Pages | None = None  # memory.max of the program's control group; None: no group
    oom_score_adj: Annotated[int, Field(ge=-1000, le=1000)] = 0  # of the program; -1000: never a victim
    oom_kills_program: bool = False  # a victim that asks for memory dies; else only what it asked for fails
    numa_nodes: Annotated[int, Field(ge=1, le=64)] = 1  # a frame is on the node of its first user
    transparent_hugepage: Literal["always", "madvise", "never"] = "never"  # who gets THP, of model memory
    nr_hugepages_2m: Annotated[int, Field(ge=0)] = 0  # hugetlb pools, out of RAM; for memory: model
    nr_hugepages_1g: Annotated[int, Field(ge=0)] = 0
    hung_task_timeout_ns: Nanoseconds = 10_000_000_000  # a host thread blocked so long is reported; 0: never
    costs: HostCosts = HostCosts()
    spread: Spread | None = None  # of what a page fault of the device, or an invalidation, takes: a draw each
