"""The command line of `nicemu lab rxe`."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nicemu.cli.app import app
from nicemu.cli.rxe_lab import guest, lock, move, sources
from nicemu.cli.rxe_lab.guest import Result
from nicemu.cli.rxe_lab.lock import Group, Lock
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.config.errors import ConfigError
from tests.cli.rxe_lab import made


class Calls:
    """Takes the place of guest.run: remembers what it was asked, answers with `results` in turn."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, Machine, dict[str, Any]]] = []
        self.results: list[Result] = []

    def __call__(self, command: Any, machine: Machine, **options: Any) -> Result:
        self.asked.append((command, machine, options))
        return self.results.pop(0) if self.results else Result(0, "", 5.0, 6.0, 0, "tcg")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    monkeypatch.setattr(guest, "run", calls)
    return calls


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["lab", "rxe", *words], prog_name="nicemu")


def test_what_follows_the_dashes_is_the_command(calls: Calls) -> None:
    invoke("--kernel", "6.1", "--", "uname", "-r", "--kernel", "--", "-h")
    assert calls.asked[0][:2] == (["uname", "-r", "--kernel", "--", "-h"], Machine(kernel="6.1"))


def test_a_command_may_be_called_like_a_subcommand(calls: Calls) -> None:
    invoke("--", "boots", "3")
    assert calls.asked[0][0] == ["boots", "3"]


def test_the_value_of_an_option_may_be_called_like_a_subcommand(calls: Calls) -> None:
    invoke("--share", "lock", "--console", "--mtu=9000", "--", "true")
    assert calls.asked[0][:2] == (["true"], Machine(share=Path("lock"), mtu=9000, verbose=True))


def test_no_command_is_a_shell(calls: Calls) -> None:
    invoke("--memory", "700")
    assert calls.asked[0][:2] == (None, Machine(memory=700))


def test_the_status_is_passed_on(calls: Calls) -> None:
    calls.results = [Result(42, "", 5.0, 6.0, 0, "tcg")]
    assert invoke("--", "false").exit_code == 42


def test_retries_and_a_lost_guest_are_said(calls: Calls) -> None:
    calls.results = [Result(125, "the guest died: why", 0.0, 6.0, 2, "tcg")]
    done = invoke("--", "false")
    assert done.exit_code == 125
    assert done.stderr.splitlines() == ["2 of 3 boots did not reach rxe0", "nicemu: the guest: the guest died: why"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("uname", "-r"), "expected boots, lock, clean.*, or -- before a command: nicemu lab rxe -- uname -r"),
        (("--kernel", "6.1", "--"), "expected a command after --, given none"),
    ],
)
def test_a_command_without_dashes_is_told_of_them(calls: Calls, words: tuple[str, ...], message: str) -> None:
    done = invoke(*words)
    assert isinstance(done.exception, ConfigError)
    assert re.search(message, str(done.exception))
    assert not calls.asked


def test_the_log_is_written_to_its_file(calls: Calls, tmp_path: Path) -> None:
    invoke("--dmesg", str(tmp_path / "log"), "--", "true")
    assert calls.asked[0][2]["want"] == ["dmesg"]
    assert (tmp_path / "log").exists()


def test_a_log_that_cannot_be_written_is_said_before_the_boot(calls: Calls) -> None:
    done = invoke("--dmesg", "/nowhere/log", "--", "true")
    assert "expected --dmesg with a file that can be written" in str(done.exception)
    assert not calls.asked


def test_boots_have_a_line_each_and_a_summary(calls: Calls) -> None:
    calls.results = [Result(0, "", 5.0, 6.0, 0, "tcg"), Result(0, "", 7.0, 80.0, 1, "tcg")]
    done = invoke("boots", "2")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "boot 1 of 2: rxe0 after 5.0 s, 0 retries, 6.0 s",
        "boot 2 of 2: rxe0 after 7.0 s, 1 retries, 80.0 s",
        "2 of 2 boots reached rxe0, 1 retries (tcg); seconds to rxe0: 5.0 to 7.0, mean 6.0",
    ]


def test_a_boot_that_fails_is_status_1(calls: Calls) -> None:
    calls.results = [Result(125, "no rxe0", 0.0, 9.0, 2, "tcg")]
    done = invoke("--kernel", "6.1", "boots", "1")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "boot 1 of 1: no rxe0: no rxe0, 2 retries, 9.0 s",
        "0 of 1 boots reached rxe0, 2 retries (tcg)",
    ]
    assert calls.asked[0][:2] == (["true"], Machine(kernel="6.1"))


def test_the_lock_file_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def group(version: str) -> Group:
        return Group("trixie", ("rdma-core",), (), (made.package("rdma-core", version.encode(), version),))

    file = tmp_path / "packages.yaml"
    file.write_text(lock.text(Lock(group("56.1"), {"7.3": group("56.1")})))
    new = Lock(group("57.0"), {"7.4": group("57.0")})
    monkeypatch.setattr(sources, "mirror", lambda chosen: "http://m.example/debian")
    monkeypatch.setattr(move, "resolve", lambda old, mirror: new)
    done = invoke("--lock", str(file), "lock")
    assert lock.read(file) == new
    assert done.stdout.splitlines() == [
        "Linux 7.3: no longer there",
        "trixie rdma-core: 56.1 -> 57.0",
        f"{file}: Linux 7.4; rdma-core 57.0",
    ]


def test_moving_needs_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="moving the lock file needs apt-get, which is not here"):
        move.resolve(lock.read(), "http://m.example/debian")


def test_apt_sees_nothing_of_the_machine_but_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "KEYRING", tmp_path / "keys.gpg")
    (tmp_path / "keys.gpg").touch()
    (tmp_path / "apt").mkdir()
    settings = move.configure(tmp_path / "apt", "trixie-backports", "http://m.example/debian").read_text()
    for name in ("Dir::Etc::sourcelist", "Dir::State::status", "Dir::State::lists", "Dir::Cache"):
        assert f'{name} "{tmp_path}/apt/' in settings
    assert (tmp_path / "apt" / "sources.list").read_text().splitlines() == [
        f"deb [arch=amd64 signed-by={tmp_path}/keys.gpg] http://m.example/debian {suite} main"
        for suite in ("trixie", "trixie-backports")
    ]


def test_what_apt_knows_of_packages_becomes_the_lock() -> None:
    shown = "Package: kmod\nVersion: 1:2-3\nDescription: long\n more\nFilename: pool/k.deb\nSize: 9\nSHA256: ab\n"
    packages = move.records(shown + "\n" + shown.replace("kmod", "bash"))
    assert [(each.name, each.version, each.path, each.size) for each in packages] == [
        ("bash", "1:2-3", "pool/k.deb", 9),
        ("kmod", "1:2-3", "pool/k.deb", 9),
    ]


def test_help_shows_how_it_is_used() -> None:
    text = invoke("--help").stdout
    assert "nicemu lab rxe -- ibv_devinfo -v" in text
    assert "Status 124" in text


def test_help_names_what_the_lock_file_has() -> None:
    text, locked = invoke("--help").stdout, lock.read()
    kernels = list(locked.kernels)
    assert f"{', '.join(kernels[:-1])} or {kernels[-1]}" in text
    assert f"rdma-core {locked.rdma_core().partition('.')[0]} " in text
