"""Programs that measure themselves, for limits and peers in other languages; C and C++ are compiled on the spot."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nicemu.bench.measure import Absent, Batch, Counts, Opener, Watch

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


def reports(program: Callable[[], Path], *arguments: int) -> Opener:
    """Opener of a program with these arguments."""

    @contextmanager
    def opener() -> Iterator[Batch]:
        command = [str(program()), *map(str, arguments)]
        yield lambda watch: report(subprocess.run(command, capture_output=True, text=True, check=False), watch)

    return opener


def report(done: subprocess.CompletedProcess[str], watch: Watch) -> Counts:
    """What a program says of its run: ``wall cpu``, then ``name value`` for each count.

    :raises Absent: it failed.
    """
    words = done.stdout.split()
    if done.returncode or len(words) < 4:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
        raise Absent(f"{Path(done.args[0]).name}: status {done.returncode}: {last[0][:200]}")
    watch.wall += float(words[0])
    watch.cpu += float(words[1])
    return dict(zip(words[2::2], map(float, words[3::2]), strict=True))
