"""``nicemu check`` as a user meets it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nicemu.check.hunt import CLEAN, SLEEPLESS
from nicemu.check.scenarios import ALL
from nicemu.cli import main
from nicemu.config.mutants import MUTANTS
from nicemu.mm.discipline import ERAS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run it; gives status, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nicemu", "check", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cat"], "field SCENARIO: expected one of dontneed, cold-dontneed"),
        (["fork", "--discipline", "v1"], "field --discipline: expected one of v3.6"),
        (["uffd-wp", "--discipline", "v3.7"], "field --discipline: expected an era of uffd-wp, given v3.7"),
        (["fork", "--mutant", "cat"], "field --mutant: expected one of zap_without_flush"),
        (["--mutants", "fork"], "field SCENARIO: expected none with --mutants"),
        (["--mutants", "--discipline", "v3.7"], "field --discipline: expected none with --mutants"),
        (["--mutants", "--mutant", "cat"], "field --mutant: expected one of zap_without_flush"),
        (["--export", "x.py"], "field --export: expected one SCENARIO, given"),
    ],
)
def test_bad_input_gets_one_line_that_names_the_field(command: Command, arguments: list[str], message: str) -> None:
    status, out, err = command(*arguments)
    assert status == 2 and out == ""
    assert err.startswith(f"nicemu: error: command line: {message}") and err.count("\n") == 1


def test_the_eras_it_knows_are_those_of_the_call_sites() -> None:
    assert {*CLEAN, *SLEEPLESS} == set(ERAS)
    assert SLEEPLESS == ("v3.6", "v3.6+srcu", "v3.7-seed") and CLEAN == ("v6.12", "v3.7")


def test_the_list_has_every_scenario_and_every_mutant(command: Command) -> None:
    status, out, _ = command("--list")
    first = [line.split()[0].rstrip(":") for line in out.splitlines()]
    assert status == 0 and first == ["scenarios", *ALL, "mutants", *MUTANTS]


def test_nothing_violated_is_status_0(command: Command) -> None:
    status, out, _ = command("fork", "--discipline", "v6.12", "--schedules", "3", "--workers", "1")
    assert status == 0
    assert out.startswith("  fork ") and "1 scenarios and eras" in out and out.endswith("seed 1: nothing violated\n")


def test_a_violation_is_status_1_with_the_way_to_see_it_again(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    options = ["--mutant", "mremap_not_notified", "--schedules", "2", "--workers", "1", "--json", str(file)]
    status, out, _ = command("mremap", *options)
    assert status == 1 and "DMA in mremap (v6.12, mutant mremap_not_notified), schedule 0 of seed 1" in out
    assert "again: nicemu check mremap --discipline v6.12 --mutant mremap_not_notified --seed 1 --only 0" in out
    data = json.loads(file.read_text())
    assert data["seed"] == 1 and data["mutants"] == []
    assert data["hunts"][0]["violation"]["kind"] == "dma" and data["hunts"][0]["schedule"] == 0


def test_only_runs_one_schedule(command: Command) -> None:
    status, out, _ = command("dontneed", "--only", "7")
    assert status == 0 and " 1 schedules" in out


def test_a_mutant_that_is_caught_is_status_0(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mutants.json"
    status, out, _ = command("--mutants", "--mutant", "cow_under_lock", "--workers", "1", "--json", str(file))
    assert status == 0 and out.splitlines()[-1] == "1 mutants, 1 caught"
    (row,) = json.loads(file.read_text())["mutants"]
    assert row == {"name": "cow_under_lock", "scenario": "cow", "era": "v6.12", "caught": True, "kind": "lock",
                   "schedule": 0, "escapes_non_preemptive": None}  # fmt: skip


def test_a_scenario_is_exported_to_a_file(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    status, _, _ = command("mprotect", "--export", str(file))
    assert status == 0 and "mprotect(a + 0 * PAGE, 2 * PAGE, 1)" in file.read_text()
