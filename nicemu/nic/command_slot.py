"""Slots of the command ring: where a command and its parameters lie."""

from nicemu._jit import jit, load64
from nicemu.abi import command as abi


@jit
def slot_address(n, slot):
    """Host address of a command slot."""
    return n.command_ring + (slot & (abi.COMMAND_SLOTS - 1)) * abi.COMMAND_BYTES


@jit
def param(at, index):
    """Parameter word of a command."""
    return load64(at + abi.COMMAND_PARAMS + 8 * index)
