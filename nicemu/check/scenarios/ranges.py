"""Operations on ranges and pages of anonymous memory, with RDMA on them."""

from nicemu.check.operations import (
    Exit,
    Fork,
    Gather,
    Kernel,
    Madvise,
    Mprotect,
    Mremap,
    Munmap,
    RdmaRead,
    RdmaWrite,
    Read,
    Scatter,
    Write,
)
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.migrate import migrate_page

A = Area("a", 2)


def reclaim(area: str, page: int) -> Kernel:
    """Reclaim takes a page."""
    return Kernel(f"reclaim {area}[{page}]", lambda bed: bed.host.reclaim.evict(bed.mm, bed.at(area, page)),
                  f"madvise({area} + {page} * PAGE, PAGE, 21)")  # fmt: skip


def migrate(area: str, page: int) -> Kernel:
    """A page moves to another frame."""
    return Kernel(f"migrate {area}[{page}]", lambda bed: migrate_page(bed.mm, bed.at(area, page)))


SCENARIOS = (
    Scenario("dontneed", "MADV_DONTNEED under RDMA WRITEs", ("zap",), (A,),
             {"program": (Madvise("a", 0, 2), Write("a", 0, value=50)),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",)),
    Scenario("munmap", "munmap under RDMA WRITEs: the rest fail", ("unmap",), (A,),
             {"program": (Munmap("a", 0, 2),), "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a"))},
             warm=("a",)),
    Scenario("exit", "a child that shares the pages ends", ("unmap", "fork"), (A,),
             {"program": (Exit(),), "peer": (RdmaWrite("a", 0, 2, value=70),)}, before=(Fork(),), warm=("a",)),
    Scenario("fork", "fork under RDMA WRITEs: the child has what was there", ("fork",), (A,),
             {"program": (Fork(), Write("a", value=50)), "peer": (RdmaWrite("a", 0, 2, value=70),)}, warm=("a",)),
    Scenario("cow", "copy on write in parent and child", ("cow", "fork"), (A,),
             {"program": (Write("a", value=50), Read("a")), "child": (Write("a", 1, value=60, mm="child"),),
              "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a"))}, before=(Fork(),), warm=("a",)),
    Scenario("mprotect", "write permission goes under RDMA WRITEs", ("mprotect",), (A,),
             {"program": (Mprotect("a", 0, 2), Read("a", 0, 2)), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",)),
    Scenario("mremap", "the area moves away", ("mremap",), (A, Area("b", 1, odp=False)),
             {"program": (Mremap("a", 0, 2), Write("moved", value=50)), "peer": (RdmaWrite("a", 0, 2, value=70),)},
             warm=("a",)),
    Scenario("reclaim", "reclaim takes pages that RDMA uses", ("unmap_one",), (A,),
             {"kswapd": (reclaim("a", 0), reclaim("a", 1)), "program": (Write("a", value=50),),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2))}, warm=("a",)),
    Scenario("migrate", "pages move to other frames under RDMA", ("migrate",), (A,),
             {"kcompactd": (migrate("a", 0), migrate("a", 1)), "peer": (RdmaWrite("a", 0, 2, value=70), Gather("a"))},
             warm=("a",)),
    Scenario("two-ranges", "two invalidations of one area at once", ("zap",), (A,),
             {"program": (Madvise("a", 0),), "other": (Madvise("a", 1),),
              "peer": (Scatter("a", 0, 2, value=70), Gather("a", 0, 2))}, warm=("a",)),
)  # fmt: skip
