#!/usr/bin/env python3
"""``tools/lower.py [COMMAND...]``: lower the engine and the default firmware into nicemu/_lowered, for a release.

With a command (``tools/dev wheel``: pip's) run it, then take away what was lowered: a checkout goes by its sources.

Whoever installs that release has LLVM make machine code of it, for the CPU at hand, and does not wait for numba.
"""

import gc
import shutil
import subprocess
import sys

from nicemu._jit import JIT, lowered
from nicemu._jit.compile import lowered as lower
from nicemu._jit.object_code import settings
from nicemu.config.paths import shipped
from nicemu.nic import firmware
from nicemu.nic.compile import KERNELS
from nicemu.nic.dispatch import UNITS


def main(command: list[str]) -> int:
    if settings() or not JIT:
        sys.exit("tools/lower.py: expected none of numba's settings (NUMBA_*): they would be part of the release")
    lower_all()
    if not command:
        return 0
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        shutil.rmtree(lowered.FOLDER)


def lower_all() -> None:
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
    sys.exit(main(sys.argv[1:]))
