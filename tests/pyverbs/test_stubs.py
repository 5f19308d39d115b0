"""Type checkers know `import pyverbs` by the stubs, and what they say of a program is right."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import pyverbs.device as d
import pyverbs.enums as e
from pyverbs.cq import CQ
from pyverbs.libibverbs_enums import _IBV_ADVISE_MR_FLAG_FLUSH, ibv_access_flags
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.providers.mlx5.mlx5dv import Mlx5Context
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr

ctx = d.Context(name="nicemu0")
most: int = ctx.query_device().max_qp
pd = PD(ctx)
cq = CQ(ctx, 10)
mr = MR(pd, 100, ibv_access_flags.IBV_ACCESS_LOCAL_WRITE | _IBV_ADVISE_MR_FLAG_FLUSH)
cap = QPCap(max_send_wr=2)
qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=cap), QPAttr())
_, completions = cq.poll(1)
text: str = completions[0].status  # wrong
qp.to_rtz(QPAttr())  # wrong
CQ(pd, 10)  # wrong
with Mlx5Context() as vendor:
    vendor.anything()
"""


def test_stubs_are_as_the_tool_writes_them() -> None:
    command = [sys.executable, str(ROOT / "tools" / "pyverbs_stubs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_checker_finds_the_mistakes_of_a_program_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    shutil.copytree(ROOT / "stubs" / "pyverbs-stubs", tmp_path / "pyverbs")  # as if installed
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary", "program.py"]
    path = {"MYPYPATH": f"{tmp_path}:{ROOT}", "MYPY_CACHE_DIR": str(tmp_path / "cache"), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
    wrong = [number for number, line in enumerate(PROGRAM.splitlines(), start=1) if line.endswith("# wrong")]
    assert [int(line.split(":")[1]) for line in done.stdout.splitlines()] == wrong, done.stdout + done.stderr
