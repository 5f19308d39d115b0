"""Huge pages: transparent ones, khugepaged, and hugetlb."""

from typing import Any

from nicemu.check.operations import Fork, Kernel, Madvise, Mprotect, Mremap, Munmap, Write
from nicemu.check.requests import Gather, RdmaRead, RdmaWrite
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.khugepaged import khugepaged_scan
from nicemu.timeline.host import Steps

PAGES = 512
HUGE = PAGES * 4096
MAP_HUGETLB = 0x40000
THP = {"transparent_hugepage": "always", "ram_pages": 8192}
POOL = {"nr_hugepages_2m": 4, "ram_pages": 8192}

A = Area("a", PAGES, seen=2, align=HUGE)
H = Area("a", PAGES, seen=2, flags=MAP_HUGETLB)


def collapse(area: str) -> Kernel:
    """khugepaged looks at the area."""
    return Kernel(f"khugepaged of {area}",
                  lambda bed: khugepaged_scan(bed.mm, bed.at(area), bed.at(area) + HUGE),
                  f"madvise({area}, 512 * PAGE, 25)")  # fmt: skip


def full(area: str) -> Kernel:
    """No huge page is left."""
    return Kernel("fragmentation", _no_huge_page, f"pass  # {area}: memory is fragmented")


def _no_huge_page(bed: Any) -> Steps[None]:
    bed.host.transparent_hugepage = "never"
    yield 0


SCENARIOS = (
    Scenario("huge-wp", "COW of a huge page, which the device reads, to a huge page", ("huge_wp",),
             (Area("a", PAGES, seen=2, align=HUGE, writable=False),),
             {"program": (Write("a", value=50),), "peer": (RdmaRead("a", 0, 2), RdmaRead("a", 0, 2))},
             before=(Fork(),), host=THP),
    Scenario("huge-wp-fallback", "COW of a huge page without a huge page to be had", ("huge_wp_fallback",), (A,),
             {"program": (Write("a", value=50),), "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))},
             before=(Fork(), full("a")), warm=("a",), host=THP, only=("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7")),
    Scenario("split-huge", "a part of a huge page goes", ("split_huge",), (A,),
             {"program": (Madvise("a", 1),), "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a", 0, 2))},
             warm=("a",), host=THP),
    Scenario("huge-munmap", "a whole huge page goes", ("unmap",), (A,),
             {"program": (Munmap("a", 0, PAGES),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",), host=THP),
    Scenario("huge-fork", "a huge page is shared by fork", ("fork",), (A,),
             {"program": (Fork(),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",), host=THP),
    Scenario("collapse", "khugepaged replaces small pages", ("collapse",), (Area("a", PAGES, seen=2, align=HUGE),),
             {"khugepaged": (collapse("a"),), "program": (Write("a", value=50),),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",),
             host={"transparent_hugepage": "madvise", "ram_pages": 8192}, before=(Madvise("a", 0, PAGES, advice=14),)),
    Scenario("hugetlb-munmap", "munmap of hugetlb memory", ("unmap",), (H,),
             {"program": (Munmap("a", 0, PAGES),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",), host=POOL),
    Scenario("hugetlb-unmap", "munmap of hugetlb memory has a pair of its own", ("hugetlb_unmap",), (H,),
             {"program": (Munmap("a", 0, PAGES),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",), host=POOL,
             only=("v3.6", "v3.6+srcu", "v3.7-seed", "v3.7")),
    Scenario("hugetlb-cow", "COW of a hugetlb page", ("hugetlb_cow",), (H,),
             {"program": (Write("a", value=50),), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             before=(Fork(),), host=POOL),
    Scenario("hugetlb-fork", "fork of hugetlb memory (3.x does not tell the device: a gap that the seed left)",
             ("hugetlb_fork",), (H,),
             {"program": (Fork(),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",), host=POOL,
             only=("v6.12",)),
    Scenario("hugetlb-mprotect", "mprotect of hugetlb memory", ("hugetlb_mprotect",), (H,),
             {"program": (Mprotect("a", 0, PAGES),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",),
             host=POOL),
    Scenario("hugetlb-mremap", "mremap of hugetlb memory", ("hugetlb_mremap",), (H,),
             {"program": (Mremap("a", 0, PAGES, align=HUGE),), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",), host=POOL),
)  # fmt: skip
