"""One timeline: the virtual clock, host threads, and the only loop that moves time."""

from nicemu.timeline.clock import SteppedClock, VirtualClock
from nicemu.timeline.host import (
    Chooser,
    Completion,
    HostThread,
    ReplayChooser,
    Scheduler,
    SeededChooser,
    Sleep,
    Steps,
)
from nicemu.timeline.loop import HungTask, Quiescent, Timeline

__all__ = [
    "Chooser", "Completion", "HostThread", "HungTask", "Quiescent", "ReplayChooser", "Scheduler", "SeededChooser",
    "Sleep", "SteppedClock", "Steps", "Timeline", "VirtualClock",
]  # fmt: skip
