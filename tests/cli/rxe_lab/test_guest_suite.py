"""The runner of rdma-core's suite that goes into the guest, on a made-up suite and without a device."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nicemu.cli.rxe_lab import guest_suite

SUITE = """
import os, signal, time, unittest
from pathlib import Path

class T(unittest.TestCase):
    def test_pass(self): print("noise")
    def test_fail(self): self.assertEqual(1, 2)
    def test_error(self): raise RuntimeError("broken")
    def test_skip(self): self.skipTest("no such device")
    def test_hang(self): time.sleep(100)
    def test_crash(self): os.kill(os.getpid(), signal.SIGSEGV)
    def test_exit(self): os._exit(3)
    def test_child_stays(self):
        if os.fork() == 0:
            time.sleep(100)
    def test_second_try(self):
        mark = Path(__file__).with_name("mark")
        first = not mark.exists()
        mark.touch()
        self.assertFalse(first)
    @unittest.expectedFailure
    def test_unexpected(self): pass
"""


def run(tmp_path: Path, *names: str, **options: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The facts and the results by name of method, of a process as it runs in the guest."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_made.py").write_text(SUITE)
    (folder / "test_broken.py").write_text("raise ImportError('no module')")
    job = {"folder": str(folder), "ids": list(names), "device": None, "address": "", "limit": 20, "tries": 1, "seed": 0}
    job |= {"results": str(tmp_path / "results.jsonl"), **options}
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run([sys.executable, guest_suite.__file__, str(tmp_path / "job.json")], check=True, timeout=60)
    facts, *results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    return facts["facts"], {each["test"].rpartition(".")[2]: each for each in results}


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [
        ("test_pass", "PASS", ""),
        ("test_fail", "FAIL", "AssertionError: 1 != 2"),
        ("test_error", "ERROR", "RuntimeError: broken"),
        ("test_skip", "SKIP", "no such device"),
        ("test_crash", "ERROR", "killed by SIGSEGV"),
        ("test_exit", "ERROR", "ended without a result"),
        ("test_child_stays", "PASS", ""),
        ("test_unexpected", "FAIL", "unexpected success"),
        ("test_missing", "ERROR", "no such test method"),
    ],
)
def test_each_outcome_has_its_status_and_reason(tmp_path: Path, method: str, status: str, reason: str) -> None:
    _, results = run(tmp_path, f"test_made.T.{method}")
    assert results[method]["status"] == status and reason in results[method]["reason"]


def test_a_test_that_hangs_is_killed_and_the_next_one_runs(tmp_path: Path) -> None:
    _, results = run(tmp_path, "test_made.T.test_hang", "test_made.T.test_pass", limit=0.5)
    assert [each["status"] for each in results.values()] == ["TIMEOUT", "PASS"]
    assert results["test_hang"]["reason"] == "killed after 0.5 s"


def test_a_failure_is_tried_again_and_every_try_is_told(tmp_path: Path) -> None:
    _, results = run(tmp_path, "test_made.T.test_second_try", "test_made.T.test_fail", "test_made.T.test_skip", tries=3)
    assert results["test_second_try"]["tries"] == ["FAIL", "PASS"]
    assert results["test_fail"]["tries"] == ["FAIL"] * 3
    assert results["test_skip"]["tries"] == ["SKIP"]


def test_a_module_that_cannot_be_imported_fails_its_own_tests_only(tmp_path: Path) -> None:
    _, results = run(tmp_path, "test_broken.T.test_one", "test_made.T.test_pass")
    assert results["test_one"]["status"] == "ERROR" and "no module" in results["test_one"]["reason"]
    assert results["test_pass"]["status"] == "PASS"


def test_the_facts_come_first(tmp_path: Path) -> None:
    facts, _ = run(tmp_path)
    assert {"kernel", "python", "pyverbs"} <= set(facts)


def test_the_gid_is_found_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, gid in enumerate(["fe80::", "0000:0000:0000:0000:0000:ffff:0a00:0003", "", guest_suite_gid("10.0.0.2")]):
        (tmp_path / str(index)).write_text(f"{gid}\n")
    monkeypatch.setattr(guest_suite, "GIDS", str(tmp_path))
    assert guest_suite.device_arguments("rxe0", "10.0.0.2") == ["--dev", "rxe0", "--gid", "3"]
    with pytest.raises(LookupError, match=r"expected a GID 0000:.*:ffff:0a00:0009 on rxe0"):
        guest_suite.device_arguments("rxe0", "10.0.0.9")


def guest_suite_gid(address: str) -> str:
    return "0000:0000:0000:0000:0000:ffff:" + "".join(f"{int(part):02x}" for part in address.split("."))[:4] + ":0002"


def test_a_device_that_is_not_there_ends_the_run_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = {"folder": "", "ids": [], "device": "none", "address": "10.0.0.2", "limit": 1, "tries": 1, "seed": 0}
    (tmp_path / "job.json").write_text(json.dumps({**job, "results": str(tmp_path / "r")}))
    assert guest_suite.main(str(tmp_path / "job.json")) == 2
    assert "guest_suite: FileNotFoundError" in capsys.readouterr().out
