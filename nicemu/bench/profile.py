"""Where the time of a 64 KiB WRITE goes: samples by perf, with names for compiled code.

perf reads ``/tmp/perf-PID.map``, which we write from the symbols of the objects that were linked. What LLVM inlined
into a unit counts as the unit's; compiled code keeps no frame pointers, so there are no call chains.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nicemu._jit import object_code
from nicemu.bench import native
from nicemu.bench.flow import Kind, flow
from nicemu.bench.measure import Absent, Watch

SECONDS, HERTZ = 3.0, 1997
Shares = dict[str, float]
"""Share of all samples by frames: ``where;unit;function``."""
_HEADER, _SECTION = struct.Struct("<40xQ10xHHH"), struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _FUNCTION = 2, 2


def functions(code: bytes) -> Iterator[tuple[str, int, int, int]]:
    """(name, offset, bytes, section) of each function that an ELF object defines."""
    first, size, count, _ = _HEADER.unpack_from(code)
    sections = [_SECTION.unpack_from(code, first + number * size) for number in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != _SYMTAB:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, _SYMBOL.size):
            name, info, _, section, value, extent = _SYMBOL.unpack_from(code, at)
            if info & 15 == _FUNCTION and section:
                end = code.index(b"\0", names + name)
                yield code[names + name : end].decode(), value, extent, section


def write_map(file: Path) -> None:
    """Every function linked so far: ``address bytes name``, in hexadecimal. Not what is rarely called: it lies in a
    section of its own, and only the loader knows where."""
    lines = []
    for symbol, (address, code) in object_code.linked().items():
        found = list(functions(code))
        start, section = next((offset, section) for name, offset, _, section in found if name == symbol)
        lines += [f"{address - start + offset:x} {extent or 1:x} {_frames(symbol, name)}"
                  for name, offset, extent, place in found if place == section]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _frames(symbol: str, name: str) -> str:
    """``nic.responder.responder``; of a function that was not inlined: ``nic.responder.responder;nic.dma.move``."""
    unit = (symbol.rpartition(".")[0] or symbol).removeprefix("nicemu.").removeprefix("nicemu.")
    return unit if name == symbol else f"{unit};{_demangled(name)}"


def _demangled(name: str) -> str:
    """Numba's names: ``_ZN`` and parts with their lengths."""
    parts, at = [], 3
    while name.startswith("_ZN") and (length := re.match(r"\d+", name[at:])):
        at += length.end()
        parts.append(name[at : at + int(length.group())])
        at += int(length.group())
    return ".".join(part for part in parts if part != "nicemu") or name[:40]


def sampled() -> Shares:
    """Run WRITEs of 64 KiB under perf.

    :raises Absent: there is no perf, or it may not sample.
    """
    program = shutil.which("perf")
    if program is None:
        raise Absent("perf is not installed")
    data, names = native.build_folder() / "perf.data", Path(f"/tmp/perf-{os.getpid()}.map")
    options = ["-q", "-F", str(HERTZ), "-o", str(data), "-p", str(os.getpid())]
    with flow(Kind())() as batch:
        batch(Watch())
        write_map(names)
        try:
            command = [program, "record", *options, "--", "sleep", str(SECONDS)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recording:
                while recording.poll() is None:
                    batch(Watch())
                _, said = recording.communicate()
            return _report(program, data, said)
        finally:
            names.unlink(missing_ok=True)


def _report(program: str, data: Path, said: str) -> Shares:
    options = ["--stdio", "--no-children", "--percent-limit", "0", "--sort", "dso,sym", "--field-separator", "|"]
    command = [program, "report", "-i", str(data), *options]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    shares: Counter[str] = Counter()
    for line in text.splitlines():
        if not line.startswith("#") and line.count("|") >= 2:
            share, place, symbol = (part.strip() for part in line.split("|", 2))
            shares[f"{_where(place)};{symbol[4:]}"] += float(share.rstrip("%")) / 100  # type: ignore[assignment]
    if not shares:
        raise Absent(f"perf has no samples: {' '.join(said.split())[:200]}")
    return dict(shares.most_common())


def _where(place: str) -> str:
    if "perf-" in place or "JIT" in place:
        return "compiled engine"
    if "kernel" in place:
        return "Linux"
    return "Python" if "python" in place else "C library" if "libc" in place else Path(place).name
