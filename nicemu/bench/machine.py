"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import nicemu
from nicemu._jit import guard
from nicemu.memory.safe_copy import method


def described() -> dict[str, str]:
    """In words: CPU, kernel, versions, how busy it was."""
    load = os.getloadavg()[0]
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores seen, one used",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}, fault-safe copies by "
        f"{'signal handlers' if guard.is_native() else method()}",
        "software": f"nicemu {nicemu.__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numba", "numpy")),
        "load": f"{load:.1f} when it began",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = next((line for line in lines if line.startswith("model name")), "")
    return found.partition(":")[2].strip() or platform.machine()
