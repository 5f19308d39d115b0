"""Operations on ranges and pages of anonymous memory, with RDMA on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicemu.check.operations import Exit, Fork, Guest, Kernel, Madvise, Mprotect, Mremap, Munmap, Read, Write
from nicemu.check.requests import DeregMr, Gather, Prefetch, RdmaRead, RdmaWrite, RegMr, Scatter
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.migrate import migrate_page
from nicemu.mm.oom_reap import reap_area
from nicemu.timeline.host import Steps

if TYPE_CHECKING:
    from nicemu.check.testbed import Testbed

A = Area("a", 2)


def reclaim(area: str, page: int) -> Kernel:
    """Reclaim takes a page."""
    return Kernel(f"reclaim {area}[{page}]", lambda bed: bed.host.reclaim.evict(bed.mm, bed.at(area, page)),
                  f"madvise({area} + {page} * PAGE, PAGE, 21)")  # fmt: skip


def age(area: str) -> Kernel:
    """Reclaim looks for pages that were not used lately, and takes them."""
    return Kernel(f"reclaim of {area}", lambda bed: bed.host.reclaim.shrink(2), f"madvise({area}, PAGE, 21)")


def reap(area: str) -> Kernel:
    """The OOM reaper comes to an area of a process that does not die."""

    def run(bed: Testbed) -> Steps[bool]:
        vma = bed.mm.vmas.find(bed.at(area, 0))
        assert vma is not None
        return (yield from reap_area(bed.mm, vma))

    return Kernel(f"oom_reap {area}", run)


def migrate(area: str, page: int) -> Kernel:
    """A page moves to another frame."""
    return Kernel(f"migrate {area}[{page}]", lambda bed: migrate_page(bed.mm, bed.at(area, page)))


SCENARIOS = (
    Scenario("dontneed", "MADV_DONTNEED under RDMA WRITEs", ("zap",), (A,),
             {"program": (Madvise("a", 0, 2), Write("a", 0, value=50)),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",)),
    Scenario("cold-dontneed", "MADV_DONTNEED while the device faults the same pages in", ("zap",), (A,),
             {"program": (Madvise("a", 0, 2),) * 4, "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}),
    Scenario("munmap", "munmap under RDMA WRITEs: the rest fail", ("unmap",), (A,),
             {"program": (Munmap("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a"))},
             warm=("a",)),
    Scenario("exit", "a child that shares the pages ends", (), (A,),
             {"program": (Exit(),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, before=(Fork(),), warm=("a",)),
    Scenario("fork", "fork under RDMA WRITEs: the child has what was there", ("fork",), (A,),
             {"program": (Fork(), Write("a", value=50)), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",)),
    Scenario("cow", "copy on write in parent and child", ("cow",), (A,),
             {"program": (Write("a", value=50), Read("a")), "child": (Write("a", 1, value=60, mm="child"),),
              "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a"))}, before=(Fork(),), warm=("a",)),
    Scenario("cow-read", "copy on write of a page that the device reads", ("cow",), (Area("a", 2, writable=False),),
             {"program": (Write("a", value=50), Write("a", 1, value=51)), "peer": (RdmaRead("a"), RdmaRead("a", 0, 2))},
             before=(Fork(),)),
    Scenario("mprotect", "write permission goes under RDMA WRITEs", ("mprotect",), (A,),
             {"program": (Mprotect("a", 0, 2), Read("a", 0, 2)), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",)),
    Scenario("mremap", "the area moves away", ("mremap",), (A, Area("b", 1, odp=False)),
             {"program": (Mremap("a", 0, 2), Write("moved", value=50)), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",)),
    Scenario("reclaim", "reclaim takes pages that RDMA uses", ("unmap_one",), (A,),
             {"kswapd": (reclaim("a", 0), reclaim("a", 1)), "program": (Write("a", value=50),),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",)),
    Scenario("oom-reaper", "the OOM reaper may not wait for the device, and is refused", ("oom_reap",), (A,),
             {"oom_reaper": (reap("a"), reap("a")), "program": (Write("a", value=50),),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",)),
    Scenario("migrate", "pages move to other frames under RDMA", ("migrate",), (A,),
             {"kcompactd": (migrate("a", 0), migrate("a", 1)), "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a"))},
             warm=("a",)),
    Scenario("in-flight", "an invalidation while data is on its way to memory", ("zap",), (A,),
             {"program": (Madvise("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",),
             nic={"zap_ns": 100, "zap_page_ns": 10, "pcie_latency_ns": 5000, "command_ns": 100}, grain=1),
    Scenario("error", "a fault on nothing: the request fails and the QP is flushed", ("unmap",), (A,),
             {"program": (Munmap("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a"))}),
    Scenario("many-faults", "faults of two QPs on the same pages", ("zap",), (Area("a", 3),),
             {"peer": (RdmaWrite("a", 0, 3, value=70), RdmaWrite("a", 1, value=80)),
              "program": (Madvise("a", 0, 3),) * 3,
              "other peer": (RdmaRead("a", 0, 3), RdmaWrite("a", 1, value=90))}),
    Scenario("register", "an MR is registered while its pages go", (), (A, Area("b", 2, odp=False)),
             {"program": (RegMr("b"),), "other": (Madvise("b", 0, 2),), "peer": (RdmaWrite("a", value=70),)}),
    Scenario("deregister", "an MR goes while it is invalidated and faulted", ("zap",), (A,),
             {"program": (DeregMr("a"),), "other": (Madvise("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",)),
    Scenario("prefetch", "advise_mr while the pages go", ("zap",), (A,),
             {"program": (Prefetch("a", 0, 2), Prefetch("a", 0, 2)), "other": (Madvise("a", 0, 2),),
              "peer": (RdmaWrite("a", value=70),)}),
    Scenario("cpu-and-device", "the program and the device touch pages for the first time", (),
             (Area("a", 2, touched=False),),
             {"program": (Write("a", 0, 2, value=50),), "peer": (RdmaWrite("a", 0, 2, value=70),),
              "other peer": (RdmaRead("a", 0, 2),)}),
    Scenario("subscribers", "a virtual machine and a remote partition mirror the same memory", ("zap",), (A,),
             {"program": (Madvise("a", 0, 2), Write("a", value=50)), "guest": (Guest("a", 0, 2), Guest("a", 0, 2)),
              "peer": (RdmaWrite("a", value=70),)}, subscribers=("kvm-mutex", "xpmem"), only=("v3.7", "v6.12")),
    Scenario("aging", "reclaim asks for young bits before it takes a page", ("unmap_one",), (A,),
             {"kswapd": (age("a"),), "guest": (Guest("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",), subscribers=("kvm",)),
    Scenario("two-ranges", "two invalidations of one area at once", ("zap",), (A,),
             {"program": (Madvise("a", 0),), "other": (Madvise("a", 1),),
              "peer": (Scatter("a", 0, 2, value=70), Gather("a", 0, 2))}, warm=("a",)),
)  # fmt: skip
