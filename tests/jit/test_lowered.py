"""What a release brings along: the same machine code without numba, and nothing of it where it does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu import _jit
from nicemu._jit import jit, object_code

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="about compiled code")
ROOT = Path(__file__).parents[2]
SHAPE = (3, True)
llvm = pytest.importorskip("llvmlite.binding")


@jit
def twice(a):
    return 2 * a


def unit(world, a, b):
    return twice(a) - b


@pytest.fixture
def lowered(tmp_path, monkeypatch):
    """The module, with a folder that has ``unit``."""
    from nicemu._jit import compile as compiler
    from nicemu._jit import lowered

    monkeypatch.setattr(lowered, "FOLDER", tmp_path)
    lowered._folder.cache_clear()
    assert lowered.save(tmp_path, unit, *SHAPE, *compiler.lowered(unit, *SHAPE))
    yield lowered
    lowered._folder.cache_clear()


def instructions(code: bytes) -> list[bytes]:
    """Of an object: without names, in which numba counts."""
    return [section.data() for section in llvm.ObjectFileRef.from_data(code).sections() if section.is_text()]


def test_it_becomes_the_machine_code_that_numba_would_give(lowered):
    from nicemu._jit import back_end
    from nicemu._jit import compile as compiler

    ways = ((back_end.here(), lowered.find(unit, *SHAPE)), (compiler.target(), compiler.lowered(unit, *SHAPE)))
    codes = [back_end.object_code(*found, "unit", *SHAPE, False, target) for target, found in ways]
    assert ways[0][0] == ways[1][0]
    assert any(instructions(codes[0]))
    assert instructions(codes[0]) == instructions(codes[1])


def test_it_is_for_the_sources_it_was_made_of(lowered, monkeypatch):
    monkeypatch.setattr(object_code, "source_digest", lambda: "others")
    assert lowered.find(unit, *SHAPE) is None


def test_it_is_for_the_function_it_was_made_of(lowered):
    assert lowered.find(twice.py_func, *SHAPE) is None
    assert lowered.find(unit, 2, True) is None


def test_settings_of_numba_need_numba(lowered, monkeypatch):
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert lowered.find(unit, *SHAPE) is None


def test_an_older_llvm_cannot_read_it(lowered, tmp_path):
    (folder,) = tmp_path.iterdir()
    folder.rename(tmp_path / str(int(folder.name) + 1))
    lowered._folder.cache_clear()
    assert lowered.find(unit, *SHAPE) is None


def test_a_damaged_file_is_not_used(lowered, tmp_path):
    (file,) = tmp_path.rglob("*unit*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert lowered.find(unit, *SHAPE) is None


def test_what_llvm_cannot_read_is_not_used(lowered, monkeypatch):
    monkeypatch.setattr(lowered.llvm, "parse_bitcode", lambda code: (_ for _ in ()).throw(RuntimeError("no bitcode")))
    assert lowered.find(unit, *SHAPE) is None


def test_instructions_of_some_cpus_stay_at_home(lowered, tmp_path):
    module = llvm.parse_assembly("declare i64 @llvm.x86.bmi.pdep.64(i64, i64)")
    assert not lowered.save(tmp_path, twice.py_func, *SHAPE, "native", module)


HELLO = """
from pyverbs.device import Context, get_device_list
from pyverbs.pd import PD
with Context(name=get_device_list()[0].name.decode()) as context, PD(context):
    print("hello")
"""


def forbid_numba(folder: Path) -> None:
    """To processes with ``folder`` in their path numba is installed, and must not be used."""
    (folder / "numba").mkdir(parents=True)
    (folder / "numba" / "__init__.py").write_text("raise AssertionError('numba was imported')\n")


@pytest.mark.slow
def test_the_first_run_of_a_release_needs_no_numba(tmp_path):
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "build", "_lowered", "tests")
    )
    (tmp_path / "hello.py").write_text(HELLO)
    forbid_numba(tmp_path / "no_numba")
    environment = os.environ | {"PYTHONPATH": str(source), "NICEMU_CACHE": str(tmp_path / "cache")}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    command = [sys.executable, "tools/lower.py", *pip, "--target", str(installed), "."]
    subprocess.run(command, cwd=source, env=environment, check=True)
    assert not (source / "nicemu" / "_lowered").exists()
    done = subprocess.run(
        [sys.executable, "-m", "nicemu", "run", "hello.py"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=environment | {"PYTHONPATH": f"{tmp_path / 'no_numba'}{os.pathsep}{installed}"},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr
    assert "compiling the engine" in done.stderr
