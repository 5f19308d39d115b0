"""The world: every record table of a lab, allocated once, never moved, and the rows compiled code sees."""

from nicemu.tables.world import World

__all__ = ["World"]
