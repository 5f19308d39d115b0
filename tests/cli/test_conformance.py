"""The conformance runner, on tests and archives made up here: nothing is downloaded."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from nicemu.cli.conformance import command, fetch, ids, privileges, releases, report, shims, stored
from nicemu.cli.conformance.outcome import Outcome, summary
from nicemu.config.errors import ConfigError

RELEASE = releases.from_pip("59", "59.0", "0" * 64)

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


def archive(path: Path, members: dict[str, bytes], link: str = "", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))
        if link:
            information = tarfile.TarInfo(str(RELEASE.tests / "test_link.py"))
            information.type, information.linkname = tarfile.SYMTYPE, link
            tar.addfile(information)
    return path


def test_unpack_takes_only_python_files_of_the_tests_folder(tmp_path: Path) -> None:
    tests = str(RELEASE.tests)
    members = {
        f"{tests}/base.py": b"x = 1",
        f"{tests}/../tests/../../escape.py": b"bad",
        f"{tests}/deeper/test_no.py": b"bad",
        f"{tests}/CMakeLists.txt": b"bad",
        "/etc/evil.py": b"bad",
        "../evil.py": b"bad",
    }
    fetch.unpack(archive(tmp_path / "a.tar.gz", members, link="/etc/passwd"), tmp_path / "out", RELEASE.tests)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")) == ["out/base.py"]


def deb(path: Path, members: dict[str, bytes]) -> Path:
    """A Debian package: an ar archive whose last member is the tar file."""
    data = archive(path.with_suffix(".tar.xz"), members, mode="w:xz").read_bytes()
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data)]
    body = b""
    for name, content in parts:
        body += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(content):<10}`\n".encode() + content
        body += b"\n" * (len(content) % 2)
    path.write_bytes(b"!<arch>\n" + body)
    return path


def test_a_debian_package_has_some_of_the_tests_compressed(tmp_path: Path) -> None:
    members = {"./usr/doc/tests/base.py": b"x = 1", "./usr/doc/tests/test_a.py.gz": gzip.compress(b"y = 2")}
    fetch.unpack(deb(tmp_path / "a.deb", members), tmp_path / "out", PurePosixPath("usr/doc/tests"))
    assert {file.name: file.read_text() for file in (tmp_path / "out").iterdir()} == {
        "base.py": "x = 1",
        "test_a.py": "y = 2",
    }


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"!<arch>\nshort", b"\x1f\x8b"])
def test_an_archive_that_is_none_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(fetch.FetchError, match=r"^a\.deb: [^\n]+$"):
        fetch.unpack(tmp_path / "a.deb", tmp_path / "out", RELEASE.tests)


def test_an_archive_without_the_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fetch.FetchError, match=r"expected pyverbs-59\.0/rdma-core/tests/base\.py in it"):
        fetch.unpack(archive(tmp_path / "a.tar.gz", {"x.py": b""}), tmp_path / "out", RELEASE.tests)


def pretend_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """What downloads leaves an archive with one test; the digest of its content."""
    made = archive(tmp_path / "made.tar.gz", {f"{RELEASE.tests}/base.py": b"x = 1"})

    def run(command: list[str], cwd: Path, **_options: object) -> subprocess.CompletedProcess[str]:
        (cwd / "pyverbs.tar.gz").write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch.subprocess, "run", run)
    fetch.unpack(made, tmp_path / "known", RELEASE.tests)
    return fetch.digest(tmp_path / "known")


def test_tests_with_another_digest_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_download(monkeypatch, tmp_path)
    with pytest.raises(fetch.FetchError, match=f"expected SHA-256 {RELEASE.sha256}"):
        fetch.tests_folder(RELEASE)
    assert list(fetch.cache_folder().iterdir()) == []


def test_tests_with_the_pinned_digest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = replace(RELEASE, sha256=pretend_to_download(monkeypatch, tmp_path))
    folder = fetch.tests_folder(pinned)
    assert (folder / "base.py").read_text() == "x = 1" and folder.name == pinned.folder_name
    monkeypatch.setattr(fetch, "download", None)  # not asked for again
    assert fetch.tests_folder(pinned) == folder


@pytest.mark.parametrize(("said", "version"), [("pyverbs (59.0)", "59.0"), ("pyverbs (101.2)", "101.2")])
def test_newest_is_what_pip_has_or_what_is_known(monkeypatch: pytest.MonkeyPatch, said: str, version: str) -> None:
    answer = subprocess.CompletedProcess([], 0, f"{said}\nAvailable versions: ...", "")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: answer)
    assert fetch.newest().version == version


def test_a_release_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"--release: expected one of 44, 56, 57, 59, newest, given '58'"):
        releases.find("58")


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


def test_a_stored_run_comes_back(tmp_path: Path) -> None:
    outcomes = [Outcome("test_a.A.test_x", "PASS", "", 0.1), Outcome("test_a.A.test_y", "FAIL", "why", 0.2, "where")]
    stored.write(tmp_path / "run.json", outcomes, {"hash_seed": 7})
    back = stored.read(str(tmp_path / "run.json"), "59")
    assert back == stored.Stored("run.json", {"test_a.A.test_x": "PASS", "test_a.A.test_y": "FAIL"}, own=True)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["hash_seed"] == 7 and document["versions"]["numba"] and document["tests"][1]["detail"] == "where"


TEXT = """
PASS       0.19s tests.test_a.A.test_x
SKIP       0.25s tests.test_a.A.test_y  # not supported
PASS test_a.A.test_z
TOTAL {'PASS': 2} in 1s
test_u (tests.test_a.A) ... ok
test_v (tests.test_a.A.test_v) ... skipped 'no hardware'
test_w (tests.test_a.A.test_w) ... FAIL
"""


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere/run.json"):
        with pytest.raises(ConfigError, match=f"expected a file that can be written, given '{path}'"):
            stored.check(path)
    (tmp_path / "run.json").write_text("an earlier run")
    stored.check(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == "an earlier run"


def test_texts_of_results_are_understood(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(TEXT)
    read = stored.read(str(tmp_path / "text"), "59")
    names = {test.rpartition("_")[2]: status for test, status in read.statuses.items()}
    assert names == {"x": "PASS", "y": "SKIP", "z": "PASS", "u": "PASS", "v": "SKIP", "w": "FAIL"} and not read.own


@pytest.mark.parametrize("text", ["", "{", '{"tests": 1}', '{"tests": [{"test": "a"}]}', "hello", "[" * 100_000])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "text").write_text(text)
    with pytest.raises(ConfigError, match=r"^--against: expected "):
        stored.read(str(tmp_path / "text"), "59")


def test_rxe_is_the_shipped_run_of_the_nearest_release() -> None:
    assert [stored.read("rxe", release).title for release in ("44", "59", "66")] == ["rxe-56", "rxe-56", "rxe-65"]
    assert stored.read("rxe-65", "44").statuses["test_pd.PDTest.test_alloc_pd"] == "PASS"


def test_differences_by_kind() -> None:
    now = {"a": "PASS", "b": "FAIL", "c": "SKIP", "d": "SKIP", "e": "PASS", "g": "TIMEOUT", "h": "PASS"}
    then = {"a": "PASS", "b": "SKIP", "c": "PASS", "d": "FAIL", "f": "PASS", "g": "ERROR", "h": "SKIP"}
    assert {each.test: each.kind for each in stored.compare(now, then)} == {
        "b": "newly failing",
        "c": "no longer passing",
        "d": "otherwise",
        "e": "only here",
        "f": "only there",
        "h": "newly passing",
    }
    assert [each.test for each in stored.compare(now, then, "[ab]")] == ["b"]


def test_expected_failures_are_read_with_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "expected").write_text("# TEST: REASON\n\ntest_a.A.test_x: pins: both\n")
    assert report.read_expected(tmp_path / "expected") == {"test_a.A.test_x": "pins: both"}


def test_what_is_expected_under_forced_odp_has_a_reason() -> None:
    from nicemu.cli.conformance.command import EXPECTED_FORCE_ODP

    assert all(test.count(".") == 2 and reason for test, reason in report.read_expected(EXPECTED_FORCE_ODP).items())


def test_root_needs_no_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 0)
    assert privileges.become_root() == "root"


AS_NOBODY = """
import ctypes, os
from nicemu.cli.conformance import privileges
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after an exec: /proc/self is ours
print(privileges.become_root(), os.geteuid())
"""


def test_others_are_root_of_a_user_namespace_or_it_says_why_not() -> None:
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0\n") or "tests that need root skip" in done.stdout


def test_errors_and_timeouts_count_as_failed() -> None:
    statuses = ["PASS", "PASS", "FAIL", "ERROR", "TIMEOUT", "SKIP"]
    assert summary(Outcome("t", status, "", 0.0) for status in statuses) == "2 passed, 3 failed, 1 skipped"


class PretendRunner:
    """Gives these outcomes."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.facts = {"runs_as": "root"}
        self.outcomes = outcomes
        self.running = {"test_a.A.test_z": 0.0}

    def run_all(self, tests: list[str], jobs: int, tick: Callable[[], None]) -> Iterator[Outcome]:
        for outcome in self.outcomes:
            tick()
            yield outcome


def run(outcomes: dict[str, str], expected: dict[str, str]) -> dict[str, Outcome]:
    given = PretendRunner(*(Outcome(test, status, "why", 0.5) for test, status in outcomes.items()))
    done = command._run(given, sorted(outcomes), 2, expected)  # type: ignore[arg-type]
    assert [outcome.test for outcome in done] == sorted(outcomes)
    return {outcome.test: outcome for outcome in done}


def test_what_is_expected_counts_apart_and_only_if_it_does_not_pass(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = run({"c": "PASS", "a": "FAIL", "b": "SKIP", "d": "FAIL"}, dict.fromkeys("abc", "it pins"))
    assert [outcomes[test].status for test in "abcd"] == ["EXPECTED", "EXPECTED", "PASS", "FAIL"]
    assert outcomes["a"].reason == "it pins (why)"
    report.print_end(list(outcomes.values()), 0.0, "somehow")
    assert capsys.readouterr().out.endswith("2 did not pass, as expected (EXPECTED above, with reasons)\n"
                                            "1 passed, 1 failed, 0 skipped\n")  # fmt: skip


def test_without_a_terminal_each_test_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    run({"a": "PASS", "b": "FAIL"}, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["[  1/2] PASS     a  0.50 s", "[  2/2] FAIL     b  0.50 s"]


def test_on_a_terminal_one_line_is_written_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run({"a": "PASS", "b": "FAIL"}, {})
    *written, last = capsys.readouterr().out.split("\r\x1b[K")
    assert written[2].startswith("[1/2] 1 passed, 0 failed, 0 skipped, ") and len(written[2]) <= 59
    assert "A.test_z" in written[1] and "[  2/2] FAIL     b  0.50 s: why\n" in written[3] and last == ""


def test_the_table_has_every_test_with_time_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_table([Outcome("a", "PASS", "", 1.5), Outcome("b", "SKIP", "no hardware", 0.25)])
    assert capsys.readouterr().out.split("\n") == [
        *("", "PASS (1)", "    1.50 s  a"),
        *("", "SKIP (1)", "    0.25 s  b: no hardware"),
        *("", "slowest: a 1.5 s, b 0.2 s", ""),
    ]


@pytest.mark.parametrize("name", ["cuda_dmabuf.A.test_b", "efa_srd.A.test_b", "efadv.A.test_b", "mlx5_cq.A.test_b"])
def test_without_a_pattern_the_tests_of_vendors_devices_are_left_out(name: str) -> None:
    assert not re.search(ids.ANY_DEVICE, f"test_{name}")


@pytest.mark.parametrize("name", ["mlx5_timestamp.A.test_b", "odp.A.test_b", "mr.A.test_mlx5_b"])
def test_tests_of_any_device_are_not(name: str) -> None:
    assert re.search(ids.ANY_DEVICE, f"test_{name}")
