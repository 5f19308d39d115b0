"""A slot of the command queue: where it lies, its parameter words, its mailbox."""

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


@jit
def mailbox(at):
    """Host address of a command's mailbox."""
    return load64(at + abi.COMMAND_MAILBOX)
