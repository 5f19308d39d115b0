"""The trap word: why a run stops for good."""

from nicemu._jit import cold
from nicemu.tables.rows import control


@cold
def trap(world, code, row):
    """Stop the run: our bug or a table limit."""
    c = control(world, 0)
    if c.trap == 0:
        c.trap = code
        c.trap_row = row
