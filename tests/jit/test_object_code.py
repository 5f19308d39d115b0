"""Machine code from the cache: without numba, never stale, never damaged, whoever else uses the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu import _jit
from nicemu._jit import object_code
from nicemu.nic import cold_start
from nicemu.nic.cold_start import compile_cold
from nicemu.tables import units

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="about compiled code")
ROOT = Path(__file__).parents[2]
KERNELS = """
import os, sys
from nicemu._jit import entry, install, jit
from nicemu._jit.object_code import folder_of

@jit
def twice(x):
    return x * FACTOR

FACTOR = 2

@entry("int64(int64, int64)")
def scaled(a, b):
    return twice(a) + b

@entry("void(int64)")
def nothing(a):
    pass

def unit(world, a, b):
    return a - b
"""
SHOW = "print(scaled(20, 2), nothing(1), install(unit, 'units') != 0, 'numba' in sys.modules)"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A module with kernels of its own."""
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    return path


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a module, compiled once."""
    path = tmp_path_factory.mktemp("once") / "kernels.py"
    path.write_text(KERNELS)
    assert run(path) == "42 None True True"
    return path


@pytest.fixture
def compiled(once: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    return Path(shutil.copytree(once.parent, tmp_path / "copy", dirs_exist_ok=True)) / once.name


def start(program: Path, text: str = SHOW, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process that runs ``before``, imports the kernels and runs ``text``; its cache lies beside them."""
    path = os.pathsep.join((str(ROOT), str(program.parent)))
    environment = os.environ | {"PYTHONPATH": path, "NICEMU_CACHE": str(program.parent / "cache")} | environment
    command = [sys.executable, "-c", f"{before}\nfrom kernels import *\n{text}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def run(program: Path, text: str = SHOW, **environment: str) -> str:
    """What such a process says."""
    process = start(program, text, **environment)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said.strip() + errors


def objects(program: Path) -> list[Path]:
    return sorted((program.parent / "cache").rglob("*.o"))


def test_the_second_process_needs_no_numba(compiled: Path):
    assert len(objects(compiled)) == 3
    assert run(compiled) == "42 None True False"


def test_edited_sources_and_settings_compile_again(compiled: Path):
    compiled.write_text(KERNELS.replace("FACTOR = 2", "FACTOR = 3"))
    assert run(compiled) == "62 None True True"
    assert run(compiled, NUMBA_OPT="1") == "62 None True True"
    assert run(compiled) == "62 None True False"


def test_damaged_files_are_compiled_again(compiled: Path):
    short, empty, wrong = objects(compiled)
    short.write_bytes(short.read_bytes()[:-100])
    empty.write_bytes(b"")
    code = bytearray(wrong.read_bytes())
    code[len(code) // 2] ^= 1
    wrong.write_bytes(code)
    assert run(compiled) == "42 None True True"
    assert run(compiled) == "42 None True False"


def test_processes_may_compile_the_same_at_once(program: Path):
    processes = [start(program, before="print('ready', flush=True); input()") for _ in range(2)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert said == ["42 None True True"] * 2
    assert run(program) == "42 None True False"
    assert not list((program.parent / "cache").rglob("*.part"))


def test_the_processes_that_compile_import_this_package_wherever_a_program_runs(tmp_path, monkeypatch):
    (tmp_path / "nicemu").mkdir()
    (tmp_path / "nicemu" / "__init__.py").write_text("raise SystemExit('another nicemu')")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    cold_start._compile([units.SENT], said.append)
    assert said[-1].startswith("nicemu:  1/1 SENT")


def test_a_cache_folder_that_cannot_be_written_costs_only_time(program: Path):
    (program.parent / "cache").write_text("a file, not a folder")
    assert run(program) == "42 None True True"


@_jit.entry("int64(int64, int64)")
def quotient(a, b):
    if b == 0:
        raise ValueError
    return a // b


def outraged(world, a, b):
    if a == 0:
        raise ValueError
    return b


def test_arguments_are_checked():
    assert quotient(-(2**63), 1) == -(2**63)
    for bad, error in (((1,), TypeError), ((1, 2, 3), TypeError), ((1, "x"), TypeError), ((1, 1.5), TypeError),
                       ((1, 2**63), OverflowError)):  # fmt: skip
        with pytest.raises(error):
            quotient.load()(*bad)


def test_an_entry_that_raises_says_so():
    with pytest.raises(RuntimeError, match=r"quotient\.\w+ raised"):
        quotient(1, 0)
    assert quotient(7, 2) == 3


def test_a_unit_that_raises_prints_and_answers_0(capfd):
    address = _jit.install(outraged, "raised")
    call = _jit.jit(lambda a, x, y, z: _jit.call(a, x, y, z))
    assert call(address, 0, 1, 5) == 5
    assert call(address, 0, 0, 5) == 0
    assert "outraged" in capfd.readouterr().err


def test_the_digest_covers_kernels_and_not_the_rest(monkeypatch: pytest.MonkeyPatch):
    covered = object_code.kernel_sources()
    assert {"_jit/compile.py", "nic/requester.py", "tables/records.py", "wire/crc32_native.py"} <= set(covered)
    assert not {"_jit/object_code.py", "nic/device.py", "driver/qp.py"} & set(covered)


def test_a_cache_that_cannot_be_filled_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only home, as in a container."""
    monkeypatch.setenv("NICEMU_CACHE", "/proc/nicemu")
    said: list[str] = []
    compile_cold(said.append)
    assert len(said) == 1 and "set NICEMU_CACHE to a folder that can be written" in said[0]
