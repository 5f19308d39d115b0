"""A run of the guest: what is passed on, what is tried again, what ends it. QEMU is a script here."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import guest, qemu
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.cli.rxe_lab.watch import Watch
from nicemu.config.errors import ConfigError

UP = ("control", "stage modules\nrxe0 4.2\n")
DONE = ("control", "status 0\n")
RUN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are begun without
from nicemu.cli.rxe_lab import guest, image
from nicemu.cli.rxe_lab.qemu import Machine
image.ready = lambda *_: image.Image(Path("a"), Path("b"))
say = lambda stream, text: stream == "stage" and print(stream, flush=True)
sys.exit(guest.run({command!r}, Machine(accel="tcg", memory=512), on_output=say).status)
"""  # a run in a process of its own
TCG = Machine(accel="tcg", memory=512)
Fake = Callable[..., Path]


class HangSeen(Watch):
    """Gives a boot up as soon as its console says that it hangs, instead of after a time."""

    console = b""

    def over(self, pid: int, up: bool) -> str:
        return "it hangs" if not up and HangSeen.console.endswith(b"hanging\n") else super().over(pid, up)


def collect(streams: dict[str, bytes]) -> guest.OnOutput:
    def take(stream: str, content: bytes) -> None:
        streams[stream] = streams.get(stream, b"") + content

    return take


def words_of(folder: Path, number: int = 0) -> list[str]:
    return list(json.loads((folder / f"start-{number}.json").read_text()))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_status_of_the_command_is_the_result(fake_qemu: Fake) -> None:
    fake_qemu([UP, ("control", "status 42\n")])
    result = guest.run(["false"], TCG)
    assert (result.status, result.reason, result.retries, result.accel) == (42, "", 0, "tcg")
    assert result.completed
    assert 0 < result.boot_seconds <= result.seconds


def test_output_errors_and_log_come_apart(fake_qemu: Fake) -> None:
    fake_qemu([("console", "kernel\n"), UP, ("out", "one"), ("err", "two"), ("out", "!"), ("dmesg", "log"), DONE])
    streams: dict[str, bytes] = {}
    guest.run(["x"], TCG, on_output=collect(streams), want=["dmesg"])
    assert streams == {
        "stage": b"Linux 7.3modulesrxe0",
        "console": b"kernel\n",
        "out": b"one!",
        "err": b"two",
        "dmesg": b"log",
    }


def test_all_output_arrives_although_the_guest_ends_right_after_it(fake_qemu: Fake) -> None:
    fake_qemu([UP, ("out", "x" * 60_000), DONE])
    streams: dict[str, bytes] = {}
    guest.run(["x"], TCG, on_output=collect(streams))
    assert len(streams["out"]) == 60_000


def test_a_line_in_two_pieces_is_one_line(fake_qemu: Fake) -> None:
    fake_qemu([("control", "rx"), ("control", "e0 1.0\nstatus"), ("control", " 3\n")])
    assert guest.run(["x"], TCG).status == 3


def test_a_boot_that_hangs_is_killed_and_tried_again(
    fake_qemu: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guest, "Watch", HangSeen)

    def take(stream: str, content: bytes) -> None:
        HangSeen.console = content if stream == "console" else b""

    folder = fake_qemu([("console", "hanging\n"), ("hang", 0)], [UP, ("control", "status 5\n")])
    result = guest.run(["x"], TCG, on_output=take)
    assert (result.status, result.retries) == (5, 1)
    assert is_gone(int(words_of(folder)[-1].removeprefix("pid=")))
    assert capsys.readouterr().err == "boot 1 of 3 has not reached rxe0 (it hangs): again\n"


def test_a_guest_that_dies_while_it_boots_is_tried_again(fake_qemu: Fake) -> None:
    panic = [("console", "x\n[ 1.0] Kernel panic - not syncing\n[ 1.0] last\n"), ("exit", 0)]
    fake_qemu(panic, panic, [UP, DONE])
    assert guest.run(["x"], TCG).retries == 2


def test_three_boots_that_fail_are_the_end(fake_qemu: Fake) -> None:
    panic = [("console", "[ 1.0] Kernel panic - not syncing: why\nlast\n"), ("exit", 0)]
    folder = fake_qemu(panic, panic, panic, [UP, DONE])
    result = guest.run(["x"], TCG)
    assert (result.status, result.retries, result.completed) == (guest.LOST, 2, False)
    assert result.reason == "the guest died: [ 1.0] Kernel panic - not syncing: why"
    assert not (folder / "start-3.json").exists()


def test_a_command_that_has_begun_is_never_repeated(fake_qemu: Fake) -> None:
    folder = fake_qemu([UP, ("console", "Oops: int3\n"), ("exit", 0)], [UP, DONE])
    result = guest.run(["x"], TCG)
    assert (result.status, result.retries, result.reason) == (guest.LOST, 0, "the guest died: Oops: int3")
    assert not (folder / "start-1.json").exists()


def test_what_the_guest_says_it_lacks_is_said_once(fake_qemu: Fake) -> None:
    folder = fake_qemu([("control", "fail the kernel has no soft-RoCE driver\n")], [UP, DONE])
    result = guest.run(["x"], TCG)
    assert (result.status, result.reason) == (guest.LOST, "the kernel has no soft-RoCE driver")
    assert not (folder / "start-1.json").exists()


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ("qemu: -fsdev local: fsdev support is disabled\n", "this QEMU has no 9p file sharing"),
        ("qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory\n", "the host has not enough memory"),
        ("qemu: warning: odd\nqemu: no such device\n", "QEMU ended with status 1: qemu: no such device"),
    ],
)
def test_what_qemu_refuses_is_not_tried_again(fake_qemu: Fake, errors: str, reason: str) -> None:
    folder = fake_qemu([("errors", errors), ("exit", 1)], [UP, DONE])
    result = guest.run(["x"], TCG)
    assert result.status == guest.LOST and reason in result.reason
    assert not (folder / "start-1.json").exists()


def test_the_time_limit_ends_a_command(fake_qemu: Fake) -> None:
    folder = fake_qemu([UP, ("out", "begun"), ("hang", 0)])
    result = guest.run(["x"], TCG, timeout=0.5)
    assert result.status == guest.TIMED_OUT
    assert "the time limit was reached" in result.reason
    assert is_gone(int(words_of(folder)[-1].removeprefix("pid=")))


def test_the_time_limit_ends_the_retries(fake_qemu: Fake) -> None:
    folder = fake_qemu([("hang", 0)], [UP, DONE])
    result = guest.run(["x"], TCG, timeout=0.3)
    assert (result.status, result.reason) == (guest.TIMED_OUT, "the time limit was reached before rxe0 was there")
    assert not (folder / "start-1.json").exists()


def test_kvm_that_boots_nothing_is_followed_by_emulation_and_remembered(
    fake_qemu: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(qemu, "has_kvm", lambda: True)
    folder = fake_qemu([("errors", "failed to set MSR\n"), ("exit", 6)], [UP, DONE], [UP, DONE])
    result = guest.run(["x"], Machine(memory=512))
    assert (result.status, result.retries, result.accel) == (0, 0, "tcg")
    assert "emulating, until this machine restarts" in capsys.readouterr().err
    assert guest.run(["x"], Machine(memory=512)).accel == "tcg"
    accelerators = [words_of(folder, number)[1].partition(",")[0] for number in range(3)]
    assert accelerators == ["kvm", "tcg", "tcg"]


def test_kvm_that_was_asked_for_is_not_replaced(fake_qemu: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "has_kvm", lambda: True)
    fake_qemu([("errors", "failed to set MSR\n"), ("exit", 6)], [UP, DONE])
    assert guest.run(["x"], Machine(memory=512, accel="kvm")).status == guest.LOST


def test_a_reader_that_fails_ends_qemu(fake_qemu: Fake) -> None:
    folder = fake_qemu([UP, ("out", "text"), ("hang", 0)])

    def take(stream: str, _content: bytes) -> None:
        if stream == "out":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        guest.run(["x"], TCG, on_output=take)
    assert is_gone(int(words_of(folder)[-1].removeprefix("pid=")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_qemu_ends_with_us(
    fake_qemu: Fake, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # who is killed leaves a folder there
    folder = fake_qemu([UP, ("hang", 0)])
    command = [sys.executable, "-c", RUN.format(command=["x"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"stage\n"] * 3
        process.send_signal(number)
    pid = int(words_of(folder)[-1].removeprefix("pid="))
    deadline = time.monotonic() + 10
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_gone(pid)


def test_the_command_and_the_settings_reach_the_guest_as_they_are(
    fake_qemu: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_qemu([UP, DONE])
    seen: dict[str, bytes] = {}
    make = qemu.command

    def look(program: str, machine: Machine, built: object, folder: Path, ports: dict[str, int]) -> list[str]:
        seen.update({name: (folder / name).read_bytes() for name in ("argv", "settings")})
        return make(program, machine, built, folder, ports)  # type: ignore[arg-type]

    monkeypatch.setattr(qemu, "command", look)
    guest.run(["a b", "", "ä'\n$x", os.fsdecode(b"\xff")], Machine(accel="tcg", memory=512, share=tmp_path, mtu=9000))
    assert seen["argv"] == b"a b\0\0" + "ä'\n$x".encode() + b"\0\xff\0"
    assert b"mtu=9000\nhugepages=0\nshared=yes\ninteractive=no\n" in seen["settings"]


def test_a_missing_qemu_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ConfigError, match=r"expected qemu-system-x86_64 in PATH, found none: install .*Debian.*Fedora.*Arch"
    ):
        guest.run(["x"])


def test_an_old_qemu_is_refused(fake_qemu: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VERSION", "4.2.1")
    with pytest.raises(ConfigError, match=r"expected QEMU 5\.0 or newer, .* is 4\.2"):
        guest.run(["x"])


def test_a_shell_has_our_terminal_and_gives_it_back(fake_qemu: Fake) -> None:
    fake_qemu([UP, ("console", "prompt# "), ("echo", 0), ("control", "status 7\n")])
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-c", RUN.format(command=None)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        seen = b""
        while b"prompt# " not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, b"\x03typed\n")
        while b"\x03typed" not in seen:
            seen += os.read(ours, 1000)
    assert process.returncode == 7
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_a_shell_needs_a_terminal() -> None:
    program = "from nicemu.cli.rxe_lab.terminal import Terminal; Terminal(True)"
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert "expected a terminal for the guest's shell, or -- and a command" in done.stderr


@pytest.mark.parametrize("said", ["status abc\n", "status 256\n", "status -1\n", "status\n"])
def test_a_status_that_is_none_ends_the_run_as_lost(fake_qemu: Fake, said: str) -> None:
    fake_qemu([UP, ("control", said)])
    result = guest.run(["x"], TCG)
    assert (result.status, result.retries) == (guest.LOST, 0)
    assert result.reason.startswith("expected a status from 0 to 255 of a command, the guest said ")


def test_a_status_before_rxe0_is_no_run(fake_qemu: Fake) -> None:
    fake_qemu([("control", "status 0\n")])
    result = guest.run(["x"], TCG)
    assert result.status == guest.LOST and not result.completed


def test_a_line_without_end_is_not_kept(fake_qemu: Fake) -> None:
    fake_qemu([UP, ("control", "x" * 60_000), ("control", "\nstatus 7\n")])
    assert guest.run(["x"], TCG).status == 7
