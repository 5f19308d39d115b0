"""`nicemu bench` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu._jit import JIT


def bench(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "nicemu", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_rows_are_listed_by_topic() -> None:
    lines = bench("--list", "--only", "64 kib", "--only", "help").stdout.splitlines()
    assert "verbs    RC WRITE 64 KiB, MTU 4096, arena" in lines
    assert "startup  nicemu --help" in lines
    assert not any("1 MiB" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nosuch"], "--only: expected a word of a row's name or topic (nicemu bench --list), given nosuch"),
        (["--against", "nosuch"], "nosuch: expected a file that can be read: No such file or directory"),
        (["--docs", "nosuch"], "nosuch: expected a file that can be read: No such file or directory"),
        (["--json", "/nosuch/f"], "--json: expected a file that can be written, given '/nosuch/f'"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nicemu: error: {message}") and done.stderr.count("\n") == 1


@pytest.mark.skipif(not JIT, reason="thousands of requests")
def test_a_row_is_measured_written_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    done = bench("--short", "--only", "FETCH_ADD", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "RC FETCH_ADD 8 B" in done.stdout and "of bare event loop" in done.stdout
    assert "1/1 RC FETCH_ADD 8 B: " in done.stderr
    content = json.loads(file.read_text())
    assert content["ratios"]["RC FETCH_ADD 8 B"]["bare event loop"] > 0
    content["ratios"]["RC FETCH_ADD 8 B"]["bare event loop"] = 1e9
    file.write_text(json.dumps(content))
    done = bench("--short", "--only", "FETCH_ADD", "--against", str(file))
    assert done.returncode == 1
    assert "nicemu: error: RC FETCH_ADD 8 B: " in done.stderr


@pytest.mark.skipif(not JIT, reason="thousands of requests")
def test_gates_fail_the_command_only_if_asked_to(tmp_path: Path) -> None:
    done = bench("--only", "poll_cq, empty", "--check")
    assert "gates, 1 of" in done.stdout
    assert done.returncode == int("NOT MET" in done.stdout)
