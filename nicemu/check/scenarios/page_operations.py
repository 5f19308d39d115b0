"""What the kernel does to pages: KSM, memory failure, MADV_FREE, soft-dirty, userfaultfd, NUMA, device memory."""

from __future__ import annotations

from functools import partial
from typing import Any

from nicemu.check.operations import Change, Kernel, Madvise, Mprotect, Munmap, Write
from nicemu.check.reference import State
from nicemu.check.requests import RdmaRead, RdmaWrite
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.aging import damon_mkold, mglru_age
from nicemu.mm.compaction import compact_block
from nicemu.mm.device_memory import make_device_exclusive, migrate_vma
from nicemu.mm.ksm import ksm_scan
from nicemu.mm.memory_failure import memory_failure, soft_offline_page
from nicemu.mm.numa import change_prot_numa
from nicemu.mm.page_table import PFN_SHIFT
from nicemu.mm.soft_dirty import clear_refs
from nicemu.mm.uprobe import uprobe_write_opcode
from nicemu.mm.userfaultfd import pagemap_scan
from nicemu.timeline.host import Steps

PAGE = 4096
A = Area("a", 2)
SAME = (Area("a", 1, fill=9), Area("b", 1, fill=9))
PEER = {"peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}


def on_area(what: str, function: Any, program: str = "") -> Kernel:
    """A kernel function of (mm, start, end) on both pages of a."""
    return Kernel(what, lambda bed: function(bed.mm, bed.at("a"), bed.at("a", 2)), program)


def frame_of(bed: Any, area: str, page: int = 0) -> int:
    """The frame at a page, 0 if none."""
    entry = bed.mm.page_table.get(bed.at(area, page) >> 12)
    return int(entry) >> PFN_SHIFT if entry & 1 else 0


CLEAR_REFS = Kernel("clear_refs", lambda bed: clear_refs(bed.mm), 'open("/proc/self/clear_refs", "w").write("4")')


def shrink(bed: Any) -> Steps[None]:
    """Reclaim takes two pages."""
    yield from bed.host.reclaim.shrink(2)


def scan(passes: int) -> Kernel:
    """ksmd goes over all mergeable pages."""
    return Kernel("ksmd", lambda bed: ksm_scan(bed.host, 2 * passes))


def fail(bed: Any) -> Steps[None]:
    """The memory of a[0] fails, if it has any."""
    frame = frame_of(bed, "a")
    if frame:
        yield from memory_failure(bed.host, frame)


def offline(bed: Any) -> Steps[None]:
    """The memory of a[0] is likely to fail."""
    frame = frame_of(bed, "a")
    if frame:
        yield from soft_offline_page(bed.host, frame)


def _lost(state: State, key: Any) -> bool:
    state.pop(key, None)
    return True


def uffd_protect(bed: Any) -> Steps[None]:
    """A userfaultfd handler protects the pages and lets writes through."""
    handler = yield from bed.lab.process.userfaultfd(asynchronous=True)
    yield from handler.register(bed.at("a"), 2 * PAGE)
    yield from handler.writeprotect(bed.at("a"), 2 * PAGE, True)


def uffd_move(bed: Any) -> Steps[None]:
    """A userfaultfd handler moves a[0] to the hole b[0]."""
    handler = yield from bed.lab.process.userfaultfd(asynchronous=True)
    yield from handler.register(bed.at("b"), PAGE)
    yield from handler.move(bed.at("b"), bed.at("a"), PAGE)


def _moved(state: State) -> bool:
    state["", "b", 0] = state["", "b", 0]._replace(value=state["", "a", 0].value)
    state["", "a", 0] = state["", "a", 0]._replace(value=0)
    return True


def patch(bed: Any) -> Steps[None]:
    """uprobes replaces a[0] by a copy with other instructions."""
    yield from uprobe_write_opcode(bed.mm, bed.at("a"), bytes([10]) * PAGE)


def _patched(state: State) -> bool:
    state["", "a", 0] = state["", "a", 0]._replace(value=10)
    return True


SCENARIOS = (
    Scenario("ksm-protect", "KSM write-protects a page to look at it", ("ksm_protect",), SAME,
             {"ksmd": (scan(3),), "peer": (RdmaWrite("a", value=70), RdmaRead("a"))},
             before=(Madvise("a", advice=12), Madvise("b", advice=12)), warm=("a",)),
    Scenario("ksm-replace", "KSM merges a page that the device reads", ("ksm_replace",),
             (Area("a", 1, fill=9, writable=False), Area("b", 1, fill=9, odp=False)),
             {"ksmd": (scan(3),), "peer": (RdmaRead("a"), RdmaRead("a")), "program": (Write("b", value=50),)},
             before=(Madvise("a", advice=12), Madvise("b", advice=12))),
    Scenario("memory-failure", "the memory of a page fails", ("unmap_one",), (A,),
             {"memory failure": (Change("failure of a[0]", fail, "madvise(a, PAGE, 100)",
                                        parts=(partial(_lost, key=("", "a", 0)),)),),
              "peer": (RdmaWrite("a", 1, value=70), RdmaRead("a", 1))}, warm=("a",)),
    Scenario("soft-offline", "a page that will fail is moved away", ("migrate",), (A,),
             {"memory failure": (Kernel("soft offline of a[0]", offline, "madvise(a, PAGE, 101)"),), **PEER},
             warm=("a",)),
    Scenario("madvise-free", "MADV_FREE, reclaim, and a write in between", ("madvise_free",), (Area("a", 1, fill=0),),
             {"program": (Madvise("a", advice=8),), "kswapd": (Kernel("reclaim", shrink),),
              "peer": (RdmaWrite("a", value=70), RdmaRead("a"))}, warm=("a",)),
    Scenario("clear-refs", "soft-dirty bits are cleared", ("clear_refs",), (A,),
             {"program": (CLEAR_REFS, Write("a", value=50)), **PEER}, warm=("a",)),
    Scenario("pagemap-scan", "PAGEMAP_SCAN write-protects what was written", ("pagemap_scan",), (A,),
             {"program": (Kernel("uffd", uffd_protect), on_area("pagemap_scan", pagemap_scan), Write("a", value=50)),
              **PEER}, warm=("a",)),
    Scenario("uffd-wp", "userfaultfd write-protects", ("uffd_wp",), (A,),
             {"program": (Kernel("uffd", uffd_protect), Write("a", value=50)), **PEER}, warm=("a",)),
    Scenario("uffd-move", "userfaultfd moves a page", ("uffd_move",), (A, Area("b", 1, touched=False, odp=False)),
             {"program": (Change("UFFDIO_MOVE of a[0] to b[0]", uffd_move, parts=(_moved,)),),
              "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",)),
    Scenario("uprobe", "uprobes replaces a page of code", ("uprobe",), (Area("a", 1, fill=9, writable=False),),
             {"uprobes": (Change("uprobe", patch, parts=(_patched,)),), "peer": (RdmaRead("a"), RdmaRead("a"))},
             before=(Mprotect("a", prot=1),)),
    Scenario("numa-hint", "NUMA balancing looks who uses the pages", ("numa_hint",), (A,),
             {"task_numa_work": (on_area("NUMA scan", change_prot_numa),), "program": (Write("a", value=50),), **PEER},
             warm=("a",)),
    Scenario("compaction", "compaction empties a block", ("migrate",), (Area("hole", 1, odp=False), A),
             {"kcompactd": (Kernel("compaction", lambda bed: compact_block(bed.host, 2)),), **PEER}, warm=("a",),
             before=(Munmap("hole"),)),
    Scenario("device-private", "pages go to a device's own memory and come back", ("device_private",), (A,),
             {"driver": (on_area("migrate_vma", partial(migrate_vma, owner="gpu")),), **PEER}, warm=("a",)),
    Scenario("device-exclusive", "a device wants a page for itself", ("device_exclusive",), (A,),
             {"driver": (Kernel("exclusive", lambda bed: make_device_exclusive(bed.mm, bed.at("a"), "gpu")),), **PEER},
             warm=("a",)),
    Scenario("young", "DAMON and MGLRU look at young bits: the device hears nothing", (), (A,),
             {"kdamond": (Kernel("damon", lambda bed: damon_mkold(bed.mm, bed.at("a"))),
                          on_area("mglru", mglru_age)), **PEER}, warm=("a",), only=("v6.12",)),
)  # fmt: skip
