"""Machine code of kernels: relocatable objects in the user's cache folder, linked into this process by LLVM's loader.

A file is the SHA-256 of an ELF object, then the object; one that does not match is compiled again. Files appear
complete or not at all (written beside, then renamed), so processes may share a folder. The folder's name is the digest
of everything compiled code depends on (of a release's, the numba here: it might have led to other instructions, that
do the same); a file's name adds the function and the source file it stands in.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import hashlib
import importlib
import importlib.util
import itertools
import marshal
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
KERNEL_FOLDERS = ("_jit", "abi", "tables", "memory", "nic", "fabric", "wire")
NOT_KERNELS = frozenset((
    "_jit/foreign.py", "_jit/guard.py", "_jit/lowered.py", "_jit/object_code.py", "_jit/twins.py",
    "fabric/cable.py", "fabric/fabric.py", "fabric/story.py",
    "memory/arena.py", "memory/frame_ids.py", "memory/frames.py", "memory/safe_copy.py", "memory/slots.py",
    "nic/cold_start.py", "nic/compile.py", "nic/device.py", "nic/doorbell.py", "nic/engine.py",
    "nic/firmware.py", "nic/hook_table.py", "nic/image_code.py", "nic/image_rules.py",
    "nic/image_source.py", "nic/unit_code.py",
    "tables/world.py", "wire/frame.py", "wire/packet.py", "wire/pcapng.py",
))  # fmt: skip
"""Files of those folders that compile nothing: editing them keeps the cache."""
COMPILERS = ("numba", "llvmlite", "numpy")
NO_EFFECT = ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS")
"""Settings of numba that change no code; every other one is part of the digest."""
CHECK_BYTES = hashlib.sha256().digest_size


def _compiler_versions() -> bytes:
    """The version files of numba and what it stands on, read without importing them."""
    found = b""
    for name in COMPILERS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        folder = Path(spec.origin).parent
        found += b"".join(path.read_bytes() for path in sorted(folder.glob("*version.py")))
    return found


def settings() -> list[tuple[str, str]]:
    """Numba's that change code."""
    return sorted((k, v) for k, v in os.environ.items() if k.startswith("NUMBA_") and k not in NO_EFFECT)


def _cpu() -> str:
    """What code is made for, and numba's settings."""
    llvm = _llvm()
    features = llvm.get_host_cpu_features().flatten()
    return f"{sys.implementation.cache_tag} {llvm.get_host_cpu_name()} {features} {settings()}"


def cpu_has(feature: str) -> bool:
    """The CPU that code is made for has a feature, by LLVM's name of it."""
    if os.environ.get("NUMBA_CPU_FEATURES"):
        return f"+{feature}" in os.environ["NUMBA_CPU_FEATURES"].split(",")
    if os.environ.get("NUMBA_CPU_NAME", "host") != "host":
        return False
    return bool(_llvm().get_host_cpu_features().get(feature, False))


def kernel_sources() -> dict[str, Path]:
    """The files that compiled code depends on, by their names below the package."""
    paths = [path for folder in KERNEL_FOLDERS for path in sorted((PACKAGE / folder).rglob("*.py"))]
    named = {path.relative_to(PACKAGE).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if name not in NOT_KERNELS}


@functools.cache
def kernel_digest() -> str:
    """Digest of everything compiled code depends on: kernel sources, dtypes, enums, compiler versions, CPU."""
    return hashlib.sha256(_compiler_versions() + _cpu().encode() + source_digest().encode()).hexdigest()[:16]


@functools.cache
def source_digest() -> str:
    """Digest of the kernel sources."""
    digest = hashlib.sha256()
    for name, path in kernel_sources().items():
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cache_root() -> Path:
    """Folder of compiled code: ``$NICEMU_CACHE``, else ``nicemu`` below the user's cache folder."""
    chosen = os.environ.get("NICEMU_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nicemu"


def folder_of(sources: Path | None) -> Path:
    """The cache folder of kernels in ``sources``, outside ``KERNEL_FOLDERS``: keyed by the kernel sources and by those,
    so that editing these does not compile the engine again. None: of the package's own kernels."""
    if sources is None:
        return cache_root() / kernel_digest()
    own = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        own.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return cache_root() / f"{kernel_digest()}-{sources.name}-{own.hexdigest()[:16]}"


@functools.cache
def _file_digest(path: str) -> bytes:
    """Digest of a source file; nothing if there is none, as for code made by ``exec``."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError:
        return b""


def key(function: Callable[..., Any], shape: object, base: str) -> str:
    """Digest of one function as it is compiled: the file it stands in, wherever that lies, its place, its signature;
    and of all it depends on, ``base``."""
    code = function.__code__
    source = _file_digest(code.co_filename) or marshal.dumps(code, 2)  # version 2: equal code, equal bytes
    parts = [base.encode(), repr(shape).encode(), source, str(code.co_firstlineno).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


@dataclass
class Work:
    """What this process did with one cache folder."""

    cached: int = 0
    compiled: int = 0
    seconds: float = 0.0
    """Wall-clock time of compiling, with numba's import if that was the first of it."""


work: dict[str, Work] = collections.defaultdict(Work)
"""By the folder's name."""
fresh: set[Path] = set()
"""Files that other processes have just written for this one: what comes from there counts as compiled."""
_closures = itertools.count()


def address_of(function: Callable[..., Any], folder: Path, arguments: int, returns: bool, python: bool = False) -> int:
    """Address of the machine code of a function of int64, compiled unless ``folder`` has it.

    ``python``: of its form that Python can call, see :func:`builtin`. A closure is compiled for this process only.
    """
    digest = key(function, (arguments, returns, python), kernel_digest())
    symbol = f"nicemu.{function.__module__}.{function.__qualname__}.{digest}"
    if function.__closure__:
        symbol += f".{next(_closures)}"
        return _link(symbol, _compile(function, symbol, arguments, returns, python))
    file = _file(function, folder, digest)
    code, started = read(file), time.perf_counter()
    if code is not None and file not in fresh:
        work[folder.name].cached += 1
    else:
        work[folder.name].compiled += 1
    if code is None:
        code = _compile(function, symbol, arguments, returns, python)
        work[folder.name].seconds += time.perf_counter() - started
        with contextlib.suppress(OSError):  # a folder that cannot be written costs the next process its time
            write(file, code)
    return _link(symbol, code)


def has_unit(function: Callable[..., Any]) -> bool:
    """The cache has the code of one of the package's own units."""
    return _file(function, folder_of(None), key(function, (3, True, False), kernel_digest())).exists()


def _file(function: Callable[..., Any], folder: Path, digest: str) -> Path:
    return folder / f"{function.__module__}.{function.__qualname__}-{digest}.o"


def _compile(function: Callable[..., Any], symbol: str, arguments: int, returns: bool, python: bool) -> bytes:
    back_end, lowered = map(importlib.import_module, ("nicemu._jit.back_end", "nicemu._jit.lowered"))  # late: LLVM
    target, found = back_end.here(), lowered.find(function, arguments, returns)
    if found is None:
        compiler = importlib.import_module("nicemu._jit.compile")  # late: it brings numba
        target, found = compiler.target(), compiler.lowered(function, arguments, returns)
    code: bytes = back_end.object_code(*found, symbol, arguments, returns, python, target)
    return code


def read(file: Path) -> bytes | None:
    """What ``write`` wrote; None if it is not there, or damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    check, code = content[:CHECK_BYTES], content[CHECK_BYTES:]
    return code if hashlib.sha256(code).digest() == check else None


def write(file: Path, code: bytes) -> None:
    """Whole, behind its SHA-256. OSError: it cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(hashlib.sha256(code).digest() + code)
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


# Loading ------------------------------------------------------------------------------------------------------------


@functools.cache
def _llvm() -> Any:
    """LLVM's bindings: half of what importing numba costs, so only where code is loaded."""
    return importlib.import_module("llvmlite.binding")


@functools.cache
def _engine() -> Any:
    """The loader. Its code lives as long as the process."""
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


_linked: dict[str, tuple[int, bytes]] = {}
"""Addresses by symbol, and the objects they came from: the loader may point into those."""


def _link(symbol: str, code: bytes) -> int:
    if symbol not in _linked:
        engine = _engine()
        engine.add_object_file(_llvm().ObjectFileRef.from_data(code))
        engine.finalize_object()
        address: int = engine.get_function_address(symbol)
        assert address, f"{symbol}: not in its object"
        _linked[symbol] = address, code
    return _linked[symbol][0]


def load_assembly(text: str, *symbols: str) -> list[int]:
    """Addresses of functions of a module that is given as LLVM's assembly text."""
    llvm, engine = _llvm(), _engine()
    llvm.initialize_native_asmparser()
    machine = llvm.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
    header = f'target datalayout = "{machine.target_data}"\ntarget triple = "{machine.triple}"\n'
    code = machine.emit_object(llvm.parse_assembly(header + text))
    _link(symbols[0], code)
    return [engine.get_function_address(symbol) for symbol in symbols]


def linked() -> dict[str, tuple[int, bytes]]:
    """Every function that was linked into this process, by its symbol: its address, and the ELF object it came from."""
    return dict(_linked)


class _MethodDef(ctypes.Structure):
    """``PyMethodDef``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_FASTCALL = 0x80
_alive: list[_MethodDef] = []


def builtin(name: str, address: int) -> Callable[..., int]:
    """A Python function from code with the ABI of METH_FASTCALL; a tenth of what a call through ctypes costs."""
    definition = _MethodDef(name.encode(), address, METH_FASTCALL, None)
    _alive.append(definition)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p)
    function: Callable[..., int] = make(("PyCFunction_NewEx", ctypes.pythonapi))(
        ctypes.byref(definition), RuntimeError, None
    )
    return function
