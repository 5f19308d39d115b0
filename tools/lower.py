#!/usr/bin/env python3
"""Lower the engine and the default firmware into nicemu/_lowered, for a release (``tools/dev wheel``).

Whoever installs that release has LLVM make machine code of it, for the CPU at hand, and does not wait for numba.
"""

import gc
import shutil
import sys

from nicemu._jit import lowered
from nicemu._jit.compile import lowered as lower
from nicemu.config.paths import shipped
from nicemu.nic import firmware
from nicemu.nic.compile import KERNELS
from nicemu.nic.dispatch import UNITS


def main() -> None:
    """One function after the other, each with all it calls: a process reads only what it needs."""
    gc.disable()
    hooks = firmware.load(shipped("firmware") / "default.py").functions.values()
    functions = [*((each, 3, True) for each in (*UNITS.values(), *hooks)), *(kernel.kernel for kernel in KERNELS)]
    shutil.rmtree(lowered.FOLDER, ignore_errors=True)
    for number, each in enumerate(functions, 1):
        kept = lowered.save(lowered.FOLDER, *each, *lower(*each))
        left_out = "" if kept else ": for some CPUs only, left out"
        print(f"lowered {number}/{len(functions)} {each[0].__qualname__}{left_out}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
