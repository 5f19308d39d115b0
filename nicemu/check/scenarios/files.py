"""Mappings of files: writeback, truncation, hole punch, reclaim, execute-in-place, nonlinear areas."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicemu.check.operations import Change, Fork, Kernel, Read, Write
from nicemu.check.reference import State
from nicemu.check.requests import Gather, RdmaRead, RdmaWrite
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.dirty_helpers import wp_shared_mapping_range
from nicemu.timeline.host import Steps

PAGE = 4096
PUNCH_HOLE_KEEP_SIZE = 3
A = Area("a", 2, file="data", shared=True)
SHMEM = Area("a", 2, file="data", shared=True, kind="shmem")
THREES = ("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7")
PEER = {"peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}


def fsync() -> Kernel:
    """The file's dirty pages are written."""
    return Kernel("fsync", lambda bed: bed.lab.process.fsync(bed.files["data"]), "os.fsync(a_fd)")


def evict(page: int) -> Kernel:
    """Reclaim takes a page of the mapping."""
    return Kernel(f"reclaim a[{page}]", lambda bed: bed.host.reclaim.evict(bed.mm, bed.at("a", page)),
                  f"madvise(a + {page} * PAGE, PAGE, 21)")  # fmt: skip


def _becomes(state: State, page: int, value: int | None) -> bool:
    state["data", page] = value
    return True


def truncate(bed: Any) -> Steps[None]:
    """ftruncate: the second page goes."""
    yield from bed.lab.process.ftruncate(bed.files["data"], PAGE)


def punch(bed: Any) -> Steps[None]:
    """fallocate: a hole where the second page was."""
    yield from bed.lab.process.fallocate(bed.files["data"], PUNCH_HOLE_KEEP_SIZE, PAGE, PAGE)


def store(bed: Any) -> Steps[None]:
    """pwrite to the first page."""
    yield from bed.lab.process.pwrite(bed.files["data"], bytes([50]) * PAGE, 0)


def nonlinear(bed: Any) -> Steps[None]:
    """remap_file_pages: the area's first page shows the file's second."""
    yield from bed.lab.process.remap_file_pages(bed.at("a"), PAGE, 1)


def _remapped(state: State) -> bool:
    state["", "a", 0] = state["", "a", 0]._replace(file=("data", 1))
    return True


REMAP = Change("remap_file_pages of a[0] to the second page", nonlinear, parts=(_remapped,))

SCENARIOS = (
    Scenario("writeback", "dirty pages are written, cleaned and dropped while the device writes", ("mkclean",), (A,),
             {"flusher": (fsync(), evict(0), evict(1)), **PEER}, warm=("a",)),
    Scenario("truncate", "the file gets shorter", ("zap",), (A,),
             {"program": (Change("ftruncate to one page", truncate, "os.ftruncate(a_fd, PAGE)",
                                 parts=(partial(_becomes, page=1, value=None),)),), **PEER}, warm=("a",)),
    Scenario("hole-punch", "a hole is punched into the file", ("zap",), (A,),
             {"program": (Change("fallocate(PUNCH_HOLE) of a[1]", punch,
                                 parts=(partial(_becomes, page=1, value=0),)),), **PEER}, warm=("a",)),
    Scenario("file-reclaim", "reclaim drops pages of the page cache", ("unmap_one",), (A,),
             {"kswapd": (evict(0), evict(1)), "program": (Write("a", value=50),), **PEER}, warm=("a",)),
    Scenario("shmem-reclaim", "reclaim swaps shared memory", ("unmap_one",), (SHMEM,),
             {"kswapd": (evict(0), evict(1)), "program": (Write("a", value=50),), **PEER}, warm=("a",)),
    Scenario("private-file", "copy on write of a private file mapping", ("cow",),
             (Area("a", 2, file="data", touched=False, writable=False),),
             {"program": (Write("a", value=50),), "peer": (RdmaRead("a"), RdmaRead("a", 0, 2))},
             before=(Read("a", 0, 2),)),
    Scenario("shared-fork", "parent and child share a file mapping", (), (SHMEM,),
             {"program": (Write("a", value=50),), "child": (Write("a", 1, value=60, mm="child"),),
              "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a", 0, 2))}, before=(Fork(),), warm=("a",)),
    Scenario("xip", "an execute-in-place file gets a block where the sparse page was mapped", ("xip_unmap",),
             (Area("a", 2, file="data", shared=True, kind="xip", touched=False, writable=False, prot=1),),
             {"program": (Change("pwrite to a hole", store, parts=(partial(_becomes, page=0, value=50),)),),
              "peer": (RdmaRead("a"), RdmaRead("a", 0, 2))}, before=(Read("a", 0, 2),), only=THREES),
    Scenario("wp-clean", "a driver that tracks what is written protects a mapping", ("wp_clean",), (SHMEM,),
             {"driver": (Kernel("wp_shared_mapping_range", lambda bed: wp_shared_mapping_range(
                 bed.host, bed.files["data"].inode, 0, 2)),), **PEER}, warm=("a",)),
    Scenario("remap-file-pages", "a nonlinear mapping", ("remap_file_pages",), (SHMEM,),
             {"program": (REMAP,), **PEER}, warm=("a",), only=THREES),
    Scenario("unmap-cluster", "reclaim in a nonlinear area", ("unmap_cluster",), (SHMEM,),
             {"kswapd": (evict(1),), **PEER}, before=(REMAP,), only=THREES),
)  # fmt: skip
