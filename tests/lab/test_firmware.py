"""Firmware images by path: they change behaviour, recompile nothing, and are refused in one line."""

import shutil
from pathlib import Path

import pytest

from nicemu import _jit
from tests.lab.test_main_job import PINGPONG, nicemu

SLOW = '''"""Waits ten times as long after an RNR NAK."""


def rnr_wait(world, row, arg):
    return arg * 10
'''


def virtual_ms(text: str) -> float:
    """Virtual time that the summary states."""
    return float(text.partition("After ")[2].partition(" ms")[0])


def test_an_image_changes_one_policy_and_recompiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    image = tmp_path / "slow.py"
    image.write_text(SLOW)
    plain = nicemu("--stats", PINGPONG, 2)
    own = tmp_path / "cache"  # a copy: other tests compile into the shared one meanwhile
    shutil.copytree(_jit.cache_root() / _jit.kernel_digest(), own / _jit.kernel_digest())
    monkeypatch.setenv("NICEMU_CACHE", str(own))
    before = sorted((own / _jit.kernel_digest()).rglob("*.o"))
    slow = nicemu("--stats", "--firmware", image, PINGPONG, 2)
    assert plain.returncode == slow.returncode == 0, slow.stderr
    assert virtual_ms(slow.stderr) > 2 * virtual_ms(plain.stderr)
    assert sorted((own / _jit.kernel_digest()).rglob("*.o")) == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def rnr_wait(world, row):\n    return 1\n", "rnr_wait: expected a function (world, row, arg)"),
        ("def rnr_wait(world, row, arg):\n    return 'x'\n", "rnr_wait: does not compile"),
        ("def rnr_wait(world, row arg):\n", "SyntaxError"),
    ],
)
def test_a_broken_image_is_refused_in_one_line(tmp_path: Path, source: str, said: str):
    image = tmp_path / "broken.py"
    image.write_text(source)
    done = nicemu("--firmware", image, PINGPONG)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


STATEFUL = '''"""Doubles the wait with each RNR NAK of a QP."""
from nicemu.firmware import nic_state, qp, qp_state

mine = qp_state("waits")
whole = nic_state("waits")


def rnr_wait(world, row, arg):
    mine(world, row).waits += 1
    whole(world, qp(world, row).nic).waits += 1
    return arg << mine(world, row).waits
'''


def test_an_image_keeps_state_of_its_own(tmp_path: Path):
    image = tmp_path / "stateful.py"
    image.write_text(STATEFUL)
    plain = nicemu("--stats", PINGPONG, 2)
    doubling = nicemu("--stats", "--firmware", image, PINGPONG, 2)
    assert doubling.returncode == 0, doubling.stderr
    assert virtual_ms(doubling.stderr) > 1.5 * virtual_ms(plain.stderr)
