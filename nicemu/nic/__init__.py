"""The NIC model: one file per hardware block, state in :mod:`nicemu.tables`, events in one compiled timing wheel."""
