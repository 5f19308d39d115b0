"""``python -m nicemu.nic.compile PARENT UNIT...``: compile units into the cache (used by ``engine.compile_cold``).

Prints the name of each unit that is done; stops when the parent process is gone.
"""

import os
import sys

from nicemu import _jit
from nicemu.memory import copy, frame_rows
from nicemu.nic.engine import HEAVY_FIRST, UNITS, run
from nicemu.nic.spread import host_factor
from nicemu.tables import units
from nicemu.tables.heap import schedule

ENTRIES = (run, schedule, host_factor, copy.read_page, copy.write_page,
           frame_rows.begin_rows, frame_rows.end_rows, frame_rows.put_rows, frame_rows.map_rows)  # fmt: skip
NAMES = {number: name for name, number in vars(units).items() if isinstance(number, int)}


def main(parent: int, numbers: list[int]) -> None:
    """Compile the given units; the process that has not the heaviest one also compiles the entries."""
    for number in numbers:
        if os.getppid() != parent:
            return
        _jit.install(UNITS[number])
        print(NAMES[number], flush=True)
    if HEAVY_FIRST[0] not in numbers or len(numbers) == len(UNITS):
        for kernel in ENTRIES:
            kernel.load()


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(number) for number in sys.argv[2:]])
