"""The pytest plug-in: what it promises in docs/pytest.md, run on labs; and without one, with a stand-in session."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from nicemu.pytest_plugin.time_limit import TimeLimit

pytest_plugins = ["pytester"]
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # pytester gives its runs another home

ALONE = """
def test_pyverbs_is_ours():
    import json.decoder
    import pyverbs.decoder
    assert pyverbs.decoder is json.decoder

def test_lab(nicemu_lab):
    assert nicemu_lab.devices == []
"""

RUN = """
import sys, types
import nicemu._alias
nicemu._alias.TARGET = "json"
uverbs = types.ModuleType("nicemu.uverbs")
fabric = types.SimpleNamespace(firings=list, rules=[])
uverbs.session = types.SimpleNamespace(
    configure=lambda config: print("seed", config.seed),
    endpoint=lambda: print("built"),
    current=lambda: types.SimpleNamespace(devices=[], injected=[], fabric=fabric),
    reset=lambda: print("reset"),
)
sys.modules["nicemu.uverbs"] = uverbs
import pytest
sys.exit(pytest.main(["-q", "-s", "-p", sys.argv[1], "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[2:]]))
"""


def installed() -> bool:
    """pytest finds the plug-in by itself."""
    return any(point.value == "nicemu.pytest_plugin" for point in entry_points(group="pytest11"))


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_suite.py").write_text(ALONE)
    command = [
        sys.executable,
        "-c",
        RUN,
        "nicemu" if installed() else "nicemu.pytest_plugin",
        "test_suite.py",
        *options,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_with_the_option_pyverbs_is_ours_and_a_test_gets_a_lab(tmp_path: Path) -> None:
    done = run(tmp_path, "--nicemu", "--nicemu-seed", "7")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    steps = [line.strip(".") for line in done.stdout.splitlines()]
    assert [line for line in steps if line in ("seed 7", "built", "reset")] == [
        *("seed 7", "built"),  # for tests that share a lab, before the first one's clock runs
        *("reset", "seed 7", "built", "reset", "seed 7"),  # the test with a lab of its own
    ]


def test_without_the_option_pyverbs_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "-rs")
    assert "1 failed, 1 skipped" in done.stdout and "needs the emulated NIC: pytest --nicemu" in done.stdout


@pytest.mark.parametrize("option", [("--nicemu-config", "nosuch"), ("--nicemu-seed", "-1")])
def test_a_wrong_configuration_is_a_usage_error(tmp_path: Path, option: tuple[str, str]) -> None:
    done = run(tmp_path, "--nicemu", *option)
    assert done.returncode == 4
    assert re.search(r"nicemu: (expected a YAML file that exists|.*seed: expected)", done.stderr)


# -- on labs


@pytest.fixture
def run_on_a_lab(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run pytest with these options; the compiled engine is where it always is."""
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    plugin = [] if installed() else ["-p", "nicemu.pytest_plugin"]
    return lambda *options: pytester.runpytest_subprocess("--nicemu", "-p", "no:xdist", *plugin, *options)


def test_the_example_of_the_documentation(
    pytester: pytest.Pytester, run_on_a_lab: Callable[..., pytest.RunResult]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    pytester.makepyfile(test_example=example[1])
    run_on_a_lab().assert_outcomes(passed=5)


FAULTS = """
import threading
import pytest
from pyverbs.cq import CQ, CompChannel
from pyverbs.device import Context

@pytest.fixture
def context():
    with Context(name="nicemu0") as opened:
        yield opened

def test_blocked(context):
    over = threading.Event()
    threading.Thread(target=over.wait).start()  # while it lives, the NIC might get something to do
    channel = CompChannel(context)
    try:
        channel.get_cq_event(CQ(context, 4, None, channel))
    finally:
        over.set()

def test_after_it(context):
    assert context.query_device().max_qp > 0

@pytest.mark.nicemu(seed=5, inject=[{"event": "port_down", "at_ns": 10**11}])
def test_too_late(context):
    pass

def test_no_packet(context, nicemu_impair):
    nicemu_impair("loss", every=1)

@pytest.mark.nicemu(seed="five")
def test_wrong_field(context):
    pass

@pytest.mark.nicemu("lossy")
def test_no_field(context):
    pass

def test_wrong_fault(nicemu_inject):
    nicemu_inject("port_down", nic=9)

@pytest.mark.nicemu(inject=[{"event": "packet", "kind": "loss", "must_fire": False}],
                    impairments=[{"kind": "loss", "must_fire": False}])
def test_nothing_must_happen(context, nicemu_inject):
    nicemu_inject("lose_interrupt", vector=4, must_fire=False)

def test_a_command_that_never_came(context, nicemu_inject):
    nicemu_inject("command_failure", command="CREATE_SRQ", status="NO_MEMORY")

def test_unknown_counter(context, nicemu_counters):
    assert nicemu_counters["host.nothing"] == 0
    nicemu_counters["nicemu0.nothing"]
"""


def test_what_a_failure_says(pytester: pytest.Pytester, run_on_a_lab: Callable[..., pytest.RunResult]) -> None:
    pytester.makepyfile(test_faults=FAULTS)
    result = run_on_a_lab("--nicemu-timeout", "5", "-rA")  # a new lab takes 0.3 s, more on a busy machine
    result.assert_outcomes(passed=2, failed=6, errors=2)
    text = result.stdout.str()
    assert "PASSED test_faults.py::test_after_it" in text
    for expected in (
        r"nicemu: the test took longer than 5 s: interrupted at \d+ ns: GetCqEvent: no event since \d+ ns",
        r"nicemu: port_down nicemu0: did not fire",
        r"its own lab: seed 5, 1 NIC\(s\), at \d+ ns of virtual time",
        r"again: pytest --nicemu --nicemu-seed 5 'test_faults\.py::test_too_late'",
        r"nicemu: impairment 'loss' never fired",
        r"nicemu marker: field seed: expected",
        r"nicemu marker: expected FIELD=VALUE, given 'lossy'",
        r"ConfigError: inject: field inject: expected entry 0 on a NIC 0\.\.0, .*\n\ntest_faults\.py:\d+: ConfigError",
        r"nicemu: command_failure nicemu0 CREATE_SRQ NO_MEMORY: did not fire: never saw a command CREATE_SRQ",
        r"nicemu0\.nothing \(there are .*nicemu0\.packets_sent",
    ):
        assert re.search(expected, text), f"{expected} not in\n{text}"


def test_a_test_that_catches_the_time_limit_is_told_again() -> None:
    import time

    caught = 0
    with TimeLimit(0.05) as limit:
        while caught < 2:
            try:
                time.sleep(5)
            except BaseException:
                caught += 1
    assert limit.expired


def test_no_time_limit() -> None:
    with TimeLimit(0) as limit:
        pass
    assert not limit.expired


RDMA_CORE = {
    "args_parser": """
        import argparse, sys
        class Parser:
            args = None
            def parse_args(self): self.args = {"port": 1}; assert sys.argv[1:] == []
        parser = Parser()
    """,
    "run_tests": "",
    "__init__": "raise SystemError('imports every vendor')",
    "base": """
        import unittest
        from args_parser import parser
        class Base(unittest.TestCase):
            def setUp(self): self.config = parser.args
    """,
    "test_a": """
        import subprocess
        from tests.base import Base
        from pyverbs.providers.mlx5.mlx5dv import Mlx5Context
        class A(Base):
            def test_port(self): self.assertEqual(self.config["port"], 1)
            def test_program(self):
                self.assertIn(b"nicemu0", subprocess.check_output(["rdma", "link", "show", "-j"]))
    """,
}


def test_tests_of_rdma_core_find_what_their_runner_sets_up(
    pytester: pytest.Pytester, run_on_a_lab: Callable[..., pytest.RunResult]
) -> None:
    folder = pytester.mkdir("rdma-core-9.0")
    for name, content in RDMA_CORE.items():
        lines = content.strip("\n").splitlines()
        (folder / f"{name}.py").write_text("\n".join(line[8:] if line.startswith(" " * 8) else line for line in lines))
    run_on_a_lab("rdma-core-9.0").assert_outcomes(passed=2)
