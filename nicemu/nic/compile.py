"""``python -m nicemu.nic.compile UNIT...``: compile engine units into the cache (used by ``engine.compile_cold``)."""

import sys

from nicemu import _jit
from nicemu.nic.engine import UNITS, run
from nicemu.tables.heap import schedule


def main(numbers: list[str]) -> None:
    """Compile the given units; the first process also compiles the entries."""
    if str(min(UNITS)) in numbers:
        run.load()
        schedule.load()
    for number in numbers:
        _jit.install(UNITS[int(number)])


if __name__ == "__main__":
    main(sys.argv[1:])
