"""`inject:`: what goes wrong on purpose, by boundary. Each entry is one fault; `event` says which."""

from typing import Annotated

from pydantic import Field

from nicemu.config.injection.device import (
    CommandFailure,
    CommandTimeout,
    DoorbellLoss,
    IotlbPoison,
    LateInterrupt,
    LoseInterrupt,
    PacketFault,
    PageFaultFail,
    PageFaultLost,
    PageFaultSlow,
)  # fmt: skip
from nicemu.config.injection.events import GidChange, MaskVector, PortEvent
from nicemu.config.injection.memory import AllocationFailure, MemoryFailure, OomKill, SlowSwap, SwapReadError
from nicemu.config.injection.program import VerbsError, WqeCorrupt
from nicemu.config.injection.rules import Injection

KINDS: tuple[type[Injection | PacketFault], ...] = (
    VerbsError, WqeCorrupt, DoorbellLoss, CommandFailure, CommandTimeout, IotlbPoison, PageFaultSlow, PageFaultFail,
    PageFaultLost, LoseInterrupt, LateInterrupt, MaskVector, PacketFault, AllocationFailure, SwapReadError, SlowSwap,
    MemoryFailure, OomKill, PortEvent, GidChange,
)  # fmt: skip
"""From the program down to the wire, then the mm, then what happens to a device as a whole."""

AnyInjection = Annotated[
    VerbsError | WqeCorrupt | DoorbellLoss | CommandFailure | CommandTimeout | IotlbPoison | PageFaultSlow
    | PageFaultFail | PageFaultLost | LoseInterrupt | LateInterrupt | MaskVector | PacketFault | AllocationFailure
    | SwapReadError | SlowSwap | MemoryFailure | OomKill | PortEvent | GidChange,
    Field(discriminator="event"),
]  # fmt: skip
