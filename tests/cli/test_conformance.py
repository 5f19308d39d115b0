"""The conformance runner, on tests and archives made up here: nothing is downloaded."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from nicemu.cli.conformance import fetch, ids, runner, shims
from nicemu.cli.conformance.command import summary
from nicemu.cli.conformance.runner import Outcome, Runner

SUITE = """
import unittest
from tests.base import RDMATestCase

class Helper(object):
    def test_nothing(self): pass

class Common(RDMATestCase):
    def test_shared(self): pass

class Left(Common):
    def test_b(self): pass
    def test_a(self): pass
    def helper(self): pass

class Plain(unittest.TestCase):
    def test_plain(self): pass
"""


def test_ids_are_read_without_importing(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(SUITE)
    (tmp_path / "utils.py").write_text("raise SystemError")
    assert ids.list_ids(tmp_path) == [
        "test_one.Common.test_shared",
        "test_one.Left.test_a",
        "test_one.Left.test_b",
        "test_one.Left.test_shared",
        "test_one.Plain.test_plain",
    ]
    assert ids.list_ids(tmp_path, r"test_one\.Left\.test_[ab]$") == ["test_one.Left.test_a", "test_one.Left.test_b"]


def archive(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))
        if link:
            information = tarfile.TarInfo(str(fetch.TESTS / "test_link.py"))
            information.type, information.linkname = tarfile.SYMTYPE, link
            tar.addfile(information)
    return path


def test_unpack_takes_only_python_files_of_the_tests_folder(tmp_path: Path) -> None:
    tests = str(fetch.TESTS)
    members = {
        f"{tests}/base.py": b"x = 1",
        f"{tests}/../tests/../../escape.py": b"bad",
        f"{tests}/deeper/test_no.py": b"bad",
        f"{tests}/CMakeLists.txt": b"bad",
        "/etc/evil.py": b"bad",
        "../evil.py": b"bad",
    }
    fetch.unpack(archive(tmp_path / "a.tar.gz", members, link="/etc/passwd"), tmp_path / "out")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")) == ["out/base.py"]


def test_an_archive_without_the_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fetch.FetchError, match=r"expected pyverbs-59\.0/rdma-core/tests/base\.py in it"):
        fetch.unpack(archive(tmp_path / "a.tar.gz", {"x.py": b""}), tmp_path / "out")


def test_a_download_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        Path(command[command.index("--dest") + 1], fetch.ARCHIVE).write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", pretend)
    with pytest.raises(fetch.FetchError, match="expected SHA-256 b30d56bb"):
        fetch.download(tmp_path, tmp_path / "kept.tar.gz")
    assert not (tmp_path / "kept.tar.gz").exists()


def test_the_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert fetch.cache_folder() == Path("/somewhere/nicemu")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder() == Path.home() / ".cache/nicemu"


def test_shims_answer_for_the_devices_and_pass_the_rest_on(tmp_path: Path) -> None:
    shims.write_shims(tmp_path / "bin", ["nicemu0", "nicemu1"])
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def call(*command: str) -> str:
        return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True).stdout

    links = json.loads(call("rdma", "link", "show", "-j"))
    assert [(row["ifname"], row["port"], row["netdev"]) for row in links] == [
        ("nicemu0", 1, "lo"),
        ("nicemu1", 1, "lo"),
    ]
    assert json.loads(call("ip", "-j", "addr", "show", "lo"))[0]["addr_info"][0]["local"] == "127.0.0.1"
    assert int(call("cat", "/sys/class/infiniband/nicemu1/ports/1/pkeys/0"), 16) == 0xFFFF
    (tmp_path / "file").write_text("real")
    assert call("cat", str(tmp_path / "file")) == "real"


def outcome_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, limit: float = 20) -> Outcome:
    """What the runner says about a child that is `program`; `scratch` is where it has to leave its result."""
    head = "import os, sys, json\nscratch = sys.argv[1]\n"
    monkeypatch.setattr(
        Runner, "_command", lambda self, scratch, test: [sys.executable, "-c", head + program, str(scratch)]
    )
    return Runner(tmp_path, limit).run("test_x.X.test_y", limit)


def test_a_result_file_is_the_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = f"json.dump(dict(status='SKIP', reason='no\\n HW', detail=''), open(scratch + '/{runner.RESULT}', 'w'))"
    outcome = outcome_of(monkeypatch, tmp_path, program)
    assert (outcome.status, outcome.reason) == ("SKIP", "no HW")


def test_a_child_that_dies_is_an_error_with_what_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcome = outcome_of(monkeypatch, tmp_path, "print('last words', flush=True); os.kill(os.getpid(), 11)")
    assert (outcome.status, outcome.reason) == ("ERROR", "the process was killed by SIGSEGV")
    assert "last words" in outcome.detail


def test_a_child_that_hangs_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    program = f"p = os.fork()\nif not p: open({str(note)!r}, 'w').write(str(os.getpid()))\nimport time; time.sleep(60)"
    outcome = outcome_of(monkeypatch, tmp_path, program, limit=1.0)
    assert (outcome.status, outcome.reason) == ("TIMEOUT", "killed after 1 s")
    deadline = time.monotonic() + 5
    while is_running(int(note.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_errors_and_timeouts_count_as_failed() -> None:
    statuses = ["PASS", "PASS", "FAIL", "ERROR", "TIMEOUT", "SKIP"]
    assert summary(Outcome("t", status, "", 0.0) for status in statuses) == "2 passed, 3 failed, 1 skipped"
