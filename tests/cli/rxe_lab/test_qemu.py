"""The command line, what is checked before, and the times a boot may take."""

from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import qemu, watch
from nicemu.cli.rxe_lab.image import Image
from nicemu.cli.rxe_lab.qemu import Machine
from nicemu.cli.rxe_lab.watch import Watch
from nicemu.config.errors import ConfigError

IMAGE = Image(Path("/i/vmlinux"), Path("/i/initrd"))


def line(machine: Machine, folder: str = "/lab") -> str:
    return " ".join(qemu.command("qemu", machine, IMAGE, Path(folder), {"control": 5, "out": 6, "frames": 7}))


def test_emulation_has_one_processor() -> None:
    assert "-accel tcg,thread=multi -machine pc -cpu max -smp 1 -m 2048M" in line(Machine())


def test_only_the_named_folder_is_shared_for_writing(tmp_path: Path) -> None:
    words = line(Machine(share=tmp_path))
    assert f"id=share,path={tmp_path},security_model=none,readonly=off" in words
    assert "id=lab,path=/lab,security_model=none,readonly=on" in words
    assert "readonly=off" not in line(Machine())


def test_a_comma_in_a_path_is_doubled() -> None:
    assert "path=/a,,b,security_model" in line(Machine(), "/a,b")


def test_each_port_has_a_pipe_and_the_network_its_socket() -> None:
    words = line(Machine())
    assert "-add-fd fd=6,set=1 -chardev file,id=port1,path=/dev/fdset/1,append=on" in words
    assert "virtserialport,chardev=port1,name=nicemu.out" in words
    assert "-netdev socket,fd=7,id=net0" in words and "nicemu.frames" not in words


def test_the_kernel_is_quiet_unless_asked() -> None:
    assert "quiet loglevel=4" in line(Machine())
    assert "quiet" not in line(Machine(verbose=True))


def test_another_network_may_be_named() -> None:
    assert "-netdev user,restrict=on,id=net0" in line(Machine(netdev="user,restrict=on"))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(memory=511), r"expected --memory 512 \(MiB\) or more, given 511"),
        (Machine(memory=1 << 30), r"the guest needs 1073741824 MiB of memory, \d+ MiB are available"),
        (Machine(memory=512, share=Path("/nowhere")), "expected --share with a folder, given '/nowhere'"),
        (Machine(memory=512, mtu=10000), "expected --mtu from 576 to 9216 bytes, given 10000"),
        (Machine(memory=512, accel="xen"), "expected --accel auto, tcg or kvm, given 'xen'"),
        (Machine(memory=512, cpus=0), "expected --cpus from 1 to 64, given 0"),
    ],
)
def test_what_cannot_work_is_refused_before_qemu_starts(machine: Machine, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        qemu.check(machine)


def test_a_host_that_does_not_tell_its_memory_is_trusted(tmp_path: Path) -> None:
    assert qemu.available_memory(tmp_path / "none") is None


def test_a_device_that_is_no_kvm_is_none(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()
    assert not qemu.has_kvm(str(tmp_path / "kvm"))
    assert not qemu.has_kvm(str(tmp_path / "none"))


class Clock:
    """The host's clock and QEMU's processor time, set by the test."""

    now = 1000.0
    used = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(watch, "processor_seconds", lambda _: clock.used)
    monkeypatch.setattr(watch, "slowness", lambda: 2.0)
    return clock


def test_a_boot_may_use_its_processor_time_scaled_to_the_machine(clock: Clock) -> None:
    boot = Watch(Machine(accel="tcg", boot_seconds=60), float("inf"))
    clock.now, clock.used = 1150, 119
    assert boot.over(1, False) == ""
    clock.used = 120
    assert boot.over(1, False) == "no rxe0 after 150 s and 120 s of processor time"


def test_a_boot_that_sleeps_is_given_up_by_the_clock(clock: Clock) -> None:
    boot = Watch(Machine(accel="tcg", boot_seconds=60), float("inf"))
    clock.now = 1479
    assert boot.over(1, False) == ""
    clock.now = 1480
    assert boot.over(1, False) == "no rxe0 after 480 s and 0 s of processor time"


def test_a_boot_with_kvm_has_little_time(clock: Clock) -> None:
    boot = Watch(Machine(accel="kvm"), float("inf"))
    clock.now = 1020
    assert boot.over(1, False) == "no rxe0 after 20 s with KVM"


def test_a_guest_that_is_up_has_until_the_deadline(clock: Clock) -> None:
    boot = Watch(Machine(accel="tcg"), 5000)
    boot.is_up()
    clock.now, clock.used = 4999, 4000
    assert boot.over(1, True) == ""
    clock.now = 5000
    assert boot.over(1, True) == "the time limit was reached while the command ran"
    assert boot.is_late


def test_the_processor_time_of_a_process_that_is_gone_is_none() -> None:
    assert watch.processor_seconds(2**22 + 1) == 0
