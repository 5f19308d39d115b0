"""The command `nicemu lab rxe test`: what it chooses, what it refuses, and a whole run against a stored one."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nicemu.cli.app import app
from nicemu.cli.rxe_lab import image, jobs, lock, qemu, referee, stored_run
from nicemu.cli.rxe_lab.jobs import Selection
from nicemu.cli.rxe_lab.records import JobResult, Record
from nicemu.cli.rxe_lab.schedule import Listener
from nicemu.cli.rxe_lab.sources import Unavailable
from nicemu.config.errors import ConfigError

TESTS = ("test_a.py::test_one", "test_a.py::test_two")
"""The tests that were collected."""


@pytest.fixture(autouse=True)
def terminate_as_before() -> Iterator[None]:
    """The command takes SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["lab", "rxe", "test", *words])
    if isinstance(result.exception, ConfigError):
        raise result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Record]]:
    """tests/verbs has TESTS; the jobs have these results, by the name of their side, without running anything."""
    records = {side: [Record(test, "PASS") for test in TESTS] for side in ("nicemu", "rxe", "nicemu as rxe")}

    def here(tests: Selection, profile: str | None, listener: Listener) -> JobResult:
        chosen = [record for record in records[listener.name.partition("/")[2]] if record.test in tests.verbs]
        return JobResult(listener.name, {record.test: record for record in chosen})

    monkeypatch.setattr(referee, "list_verbs", lambda folder: list(TESTS))
    monkeypatch.setattr(referee, "_prepare_engine", lambda: None)
    monkeypatch.setattr(jobs, "verbs_here", here)
    return records


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A stored run of rxe."""
    job: dict[str, Any] = {"name": "verbs/rxe", "seconds": 1, "retries": 0, "trouble": "", "facts": {}}
    job["tests"] = [{"test": test, "status": "PASS"} for test in TESTS]
    path = tmp_path / "stored.json"
    path.write_text(json.dumps({"jobs": [job], "versions": {"guest": {"kernel": "7.3"}}}))
    return path


def test_a_stored_run_takes_the_place_of_a_guest(verbs: dict[str, list[Record]], stored: Path, tmp_path: Path) -> None:
    status, text = invoke("--only", "verbs", "--against", str(stored), "--json", str(tmp_path / "run.json"))
    assert status == 0 and text.splitlines()[-1] == "2 tests, 2 same; 0 differences, 0 unexplained"
    found, versions = stored_run.read(str(tmp_path / "run.json"))
    assert list(found["verbs/rxe"].records) == list(TESTS) and versions["guest"] == {"kernel": "7.3"}


def test_a_failure_sets_the_status(verbs: dict[str, list[Record]], stored: Path) -> None:
    verbs["nicemu"][0] = Record(TESTS[0], "FAIL", "AssertionError")
    status, text = invoke("--only", "verbs", "--against", str(stored), "--no-model")
    assert status == 1 and "verbs/nicemu: 1 failed" in text


def test_a_pattern_chooses_on_both_sides(verbs: dict[str, list[Record]], stored: Path) -> None:
    status, text = invoke("two$", "--only", "verbs", "--against", str(stored))
    assert status == 0 and text.splitlines()[-1].startswith("1 tests, 1 same")


def test_a_test_that_the_stored_run_does_not_have_is_no_problem(
    verbs: dict[str, list[Record]], stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = "test_a.py::test_new"
    monkeypatch.setattr(referee, "list_verbs", lambda folder: [*TESTS, new])
    for records in verbs.values():
        records.append(Record(new, "PASS"))
    status, text = invoke("--only", "verbs", "--against", str(stored))
    assert status == 0 and "2 same, 1 not run" in text


def test_a_stored_run_without_a_group_does_not_pass(verbs: dict[str, list[Record]], stored: Path) -> None:
    document = json.loads(stored.read_text())
    document["jobs"][0]["name"] = "suite/rxe"
    stored.write_text(json.dumps(document))
    status, text = invoke("--only", "verbs", "--against", str(stored))
    assert status == 1 and "verbs/rxe: the stored run has none of these tests" in text


def test_a_stored_run_of_other_tests_does_not_pass(verbs: dict[str, list[Record]], stored: Path) -> None:
    stored.write_text(stored.read_text().replace("test_a.py", "test_b.py"))
    status, text = invoke("--only", "verbs", "--against", str(stored))
    assert status == 1 and "verbs/rxe: the stored run has none of these tests" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [("jobs", [1]), ("versions", {"guest": [1]}), ("versions", 5), ("jobs", {"a": 1})],
)
def test_a_stored_run_that_is_none_is_one_line(stored: Path, name: str, value: object) -> None:
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {name: value}))
    with pytest.raises(ConfigError, match="--against: expected what --json wrote"):
        stored_run.read(str(stored))


@pytest.mark.parametrize(
    "changed",
    [
        {"retries": float("inf")},
        {"seconds": "abc"},
        {"tests": [{"test": "a", "status": "GOOD"}]},
        {"tests": [{"test": "a", "status": "PASS", "observations": [{"what": "x"}]}]},
        {"tests": [{"test": "a", "status": "PASS",
                    "observations": [{"what": "x", "observed": 1, "spec": {"one of": 5}}]}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_stored_job_that_is_none_is_one_line(stored: Path, changed: dict[str, object]) -> None:
    document = json.loads(stored.read_text())
    document["jobs"][0] |= changed
    stored.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="--against: expected what --json wrote"):
        stored_run.read(str(stored))


def test_the_versions_are_those_of_the_lock_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "packages.yaml"
    other.write_text(lock.FILE.read_text().replace('"6.1":', '"6.2":'))
    built: list[str] = []
    monkeypatch.setattr(qemu, "find", lambda: "qemu")
    monkeypatch.setattr(qemu, "version", lambda: "7.2")
    monkeypatch.setattr(qemu, "check", lambda machine: None)
    monkeypatch.setattr(image, "ready", lambda locked, series, mirror: built.append(",".join(locked.kernels)))
    assert referee._prepare(qemu.Machine(lock=other, kernel="6.2"))["kernel_series"] == "6.2"
    assert built == ["7.3,6.12,6.2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "both"), "--only: expected verbs or suite, given 'both'"),
        (("(", "--only", "verbs"), "expected a regular expression, given '\\('"),
        (("nothing", "--only", "verbs"), "expected a pattern that finds a test, given 'nothing'"),
        (("--only", "verbs", "--against", "nowhere"), "--against: expected a file or .*, given 'nowhere'"),
        (("--only", "verbs", "--json", "/none/run.json"), "expected a file that can be written"),
    ],
)
def test_bad_input_is_one_line(verbs: dict[str, list[Record]], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        invoke(*words)


@pytest.mark.parametrize("words", [("--share", "."), ("--mtu", "1500"), ("--timeout", "5"), ("--console",)])
def test_options_of_one_guest_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=f"^{words[0]} before `test`: expected none"):
        CliRunner().invoke(app, ["lab", "rxe", *words, "test"], catch_exceptions=False)


def test_without_qemu_it_says_what_to_do(verbs: dict[str, list[Record]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"expected qemu-system-x86_64 .*\(--against rxe-7\.3 compares with a stored"):
        invoke("--only", "verbs")


def test_without_tests_verbs_it_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="they come with nicemu's sources"):
        invoke("--only", "verbs", "--tests", str(tmp_path))


def test_the_ids_are_those_that_pytest_collects(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser): parser.addoption('--verbs')\n")
    source = "import pytest\n@pytest.mark.parametrize('x', ['a', 'b c'])\ndef test_two(x): pass\ndef test_one(): pass\n"
    (tmp_path / "test_made.py").write_text(source)
    wanted = ["test_made.py::test_two[a]", "test_made.py::test_two[b c]", "test_made.py::test_one"]
    assert referee.list_verbs(tmp_path) == wanted


def test_tests_that_cannot_be_collected_are_said(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser): parser.addoption('--verbs')\n")
    (tmp_path / "test_made.py").write_text("import nothing_like_it\n")
    with pytest.raises(ConfigError, match="pytest could not collect"):
        referee.list_verbs(tmp_path)


@pytest.mark.slow
def test_a_few_tests_on_rxe_itself(tmp_path: Path) -> None:
    """Boots two guests. What is compared has to be the same, or explained."""
    if shutil.which(qemu.PROGRAM) is None:
        pytest.skip(f"NO GUEST, SO NOTHING WAS COMPARED WITH RXE: there is no {qemu.PROGRAM}")
    try:
        referee._prepare(qemu.Machine())
    except Unavailable as error:
        pytest.skip(f"NO GUEST, SO NOTHING WAS COMPARED WITH RXE: {error}")
    status, text = invoke(r"test_framework|test_cq\.CQAPI|test_odp_rc_traffic", "--json", str(tmp_path / "run.json"))
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["problems"] == [] and status == 0, text
    assert {job["name"] for job in document["jobs"]} >= {"verbs/rxe", "suite/rxe", "verbs/nicemu", "suite/nicemu"}
    assert shutil.which(qemu.PROGRAM) and document["versions"]["guest"]["qemu"]
