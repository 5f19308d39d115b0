"""C and C++ compiled on the spot, for limits and peers in other languages."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from nicemu.bench.measure import Absent

LONGEST_S = 300


@functools.cache
def build_folder() -> Path:
    """Where programs are built; it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="nicemu-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def built(source: Path, compilers: tuple[str, ...], options: tuple[str, ...] = ()) -> Path:
    """The program made of one source file.

    :raises Absent: there is none of the compilers, or it refuses.
    """
    compiler = next((found for name in compilers if (found := shutil.which(name))), None)
    if compiler is None:
        raise Absent(f"no compiler: none of {', '.join(compilers)} is installed")
    program = build_folder() / source.stem
    command = [compiler, "-O2", "-march=native", str(source), "-o", str(program), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        raise Absent(f"{source.name}: {compiler} took longer than {LONGEST_S} s") from None
    if done.returncode:
        first = next(iter(line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise Absent(f"{source.name} does not compile: {first}")
    return program
