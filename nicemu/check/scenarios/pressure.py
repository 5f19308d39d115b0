"""Memory pressure: the OOM reaper, and exit of the program itself."""

from nicemu.check.operations import Kernel, Madvise, RdmaRead, RdmaWrite
from nicemu.check.scenario import Area, Scenario
from nicemu.mm.oom_reap import oom_reap_task_mm

A = Area("a", 2)

SCENARIOS = (
    Scenario("oom-reaper", "the OOM reaper may not wait: it skips what the device has", ("oom_reap",),
             (A, Area("b", 1, touched=False, odp=False)),
             {"oom_reaper": (Kernel("OOM reaper", lambda bed: oom_reap_task_mm(bed.mm)),),
              "peer": (RdmaWrite("a", 0, 2, value=70), RdmaRead("a", 0, 2)), "program": (Madvise("b"),)}, warm=("a",)),
)  # fmt: skip
