"""Between chunks of inputs: bring everything up, bring everything to rest and see that nothing is left over."""

from pathlib import Path

from nicemu._jit import entry, jit
from nicemu.lab.fuzz.healthy import see_healthy
from nicemu.lab.fuzz.host import give_up, rest, revive_all
from nicemu.lab.fuzz.tables import Stuck, fuzz
from nicemu.tables.rows import control, packet

LEAK = int(Stuck.LEAK)


@jit
def packets_out(world):
    """Packet rows taken and not given back."""
    c = control(world, 0)
    free = 0
    p = c.packet_free
    while p != 0 and free < c.packet_next:
        free += 1
        p = packet(world, p).next
    return c.packet_next - 1 - free


@entry("int64(int64, int64, int64)", Path(__file__).parent)
def bring_up(world, f, _):
    """Every target to its state."""
    fuzz(f, 0).events = 0
    revive_all(world, f)
    return fuzz(f, 0).stuck


@entry("int64(int64, int64, int64)", Path(__file__).parent)
def settle(world, f, _):
    """All targets to RESET: then no event is left, no packet is missing, and the honest pair has done its work."""
    rest(world, f)
    if fuzz(f, 0).stuck == 0:
        see_healthy(world, f)
    out = packets_out(world)
    if out != 0:
        give_up(f, LEAK, out)
    return fuzz(f, 0).stuck
