"""``python -m nicemu.nic.compile``: compile units into the cache (used by :mod:`nicemu.nic.cold_start`).

Standard input gives one number of a unit a line, or ``ENTRIES``; each is answered by a line when it is done. The end of
input, which also comes when the parent process is gone, ends it.
"""

import gc
import sys

from nicemu import _jit
from nicemu.memory import copy, frame_rows
from nicemu.nic import bar
from nicemu.nic.cold_start import ENTRIES
from nicemu.nic.dispatch import UNITS, run
from nicemu.nic.spread import host_factor
from nicemu.nic.unit_code import NAMES
from nicemu.tables.wheel import due, schedule

KERNELS = (run, schedule, due, bar.write_doorbell, bar.set_time, host_factor, copy.read_page, copy.write_page,
           frame_rows.begin_rows, frame_rows.end_rows, frame_rows.put_rows, frame_rows.map_rows)  # fmt: skip


def main() -> None:
    """Compile what is asked for. Nothing that numba made is thrown away before the end, so that looking for garbage
    costs a tenth of the time and finds nothing."""
    gc.disable()
    for line in sys.stdin:
        asked = line.strip()
        if asked == ENTRIES:
            for kernel in KERNELS:
                kernel.load()
            print(ENTRIES, flush=True)
        else:
            _jit.install(UNITS[int(asked)])
            print(NAMES[int(asked)], flush=True)


if __name__ == "__main__":
    main()
