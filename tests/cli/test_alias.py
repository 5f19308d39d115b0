"""`import pyverbs` gives nicemu's modules, the same objects under both names."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = {
    "emulated/__init__.py": "",
    "emulated/verbs/__init__.py": "from .qp import QP",
    "emulated/verbs/qp.py": "from .base import Base\nclass QP(Base): pass",
    "emulated/verbs/base.py": "class Base: pass",
    "pyverbs/__init__.py": "REAL = True",
    "pyverbs/qp.py": "",
    "pyverbs/spec.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stand-in for our package beside a stand-in for the real pyverbs."""
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def python(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    head = "import sys; from nicemu import _alias; _alias.TARGET = 'emulated.verbs'\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{head}{program}"],
        capture_output=True,
        text=True,
    )


def test_both_names_are_the_same_module_objects(folder: Path) -> None:
    done = python(
        folder,
        "_alias.install(); _alias.install()\n"
        "import pyverbs.qp, pyverbs.base as b, emulated.verbs.qp, emulated.verbs.base\n"
        "from pyverbs import qp\n"
        "assert pyverbs.qp is qp is emulated.verbs.qp and b is emulated.verbs.base\n"
        "assert qp.__spec__.name == qp.__name__ == 'emulated.verbs.qp' and not hasattr(pyverbs, 'REAL')\n"
        "assert issubclass(qp.QP, b.Base)\n",
    )
    assert done.returncode == 0, done.stderr


def test_a_module_that_only_the_real_one_has_is_not_found(folder: Path) -> None:
    done = python(folder, "_alias.install(); import pyverbs.spec")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'pyverbs.spec'"


def test_without_install_the_real_one_is_found(folder: Path) -> None:
    assert python(folder, "import pyverbs; assert pyverbs.REAL").returncode == 0


def test_it_is_too_late_after_the_real_one_was_imported(folder: Path) -> None:
    done = python(folder, "import pyverbs; _alias.install()")
    assert "RuntimeError: pyverbs was imported from" in done.stderr
