"""Programs run as plain Python would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

from nicemu._program import load_module, load_script
from nicemu.config import ConfigError

RUN = """
import sys
from nicemu._program import load_module, load_script, run_program
kind, name, *rest = sys.argv[1:]
sys.exit(run_program(load_module(name) if kind == "-m" else load_script(name), rest))
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True)


def plain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    "source",
    [
        "import sys; print(__name__, __file__, sys.argv, sys.path[0])",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('no device')",
        "raise SystemExit",
        "def f():\n    raise ValueError('x')\ntry:\n    f()\nexcept ValueError as e:\n    raise KeyError(1) from e",
        "import sys; sys.excepthook = lambda *a: print('mine', a[0]); 1 / 0",
        "print(type(__builtins__), __package__, __spec__, __doc__)",
        "def broken(:\n  pass",
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(.05), print('late'))).start()\nprint('main')",
        "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    b: 'int'\nprint(A(1))",
    ],
)
def test_a_script_behaves_as_under_plain_python(tmp_path: Path, source: str) -> None:
    (tmp_path / "script.py").write_text(source)
    ours, theirs = run(tmp_path, "script", "script.py", "a", "-b"), plain(tmp_path, "script.py", "a", "-b")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize("name", ["module", "package", "package.inner"])
def test_a_module_behaves_as_under_plain_python(tmp_path: Path, name: str) -> None:
    source = "import sys; print(__name__, __package__, __spec__.name, __file__, sys.argv, sys.path[0])"
    (tmp_path / "package").mkdir()
    for file in ("module.py", "package/__init__.py", "package/__main__.py", "package/inner.py"):
        (tmp_path / file).write_text("" if "init" in file else source)
    ours, theirs = run(tmp_path, "-m", name, "a"), plain(tmp_path, "-m", name, "a")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stdout


def test_a_program_that_does_not_exist_is_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"expected a Python program, given 'nosuch.py': No such file"):
        load_script("nosuch.py")
    with pytest.raises(ConfigError, match=r"expected a Python module that can be run, given 'nosuch.module'"):
        load_module("nosuch.module")
