"""QEMU: is it here, can it use KVM, and the command line of the guest."""

import fcntl
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nicemu.cli.rxe_lab.image import Image
from nicemu.config.errors import ConfigError

PROGRAM = "qemu-system-x86_64"
OLDEST = (5, 0)  # 7.2 is what was tried; 4.0 was the first that enters an ELF kernel
PACKAGES = "qemu-system-x86 (Debian, Ubuntu), qemu-system-x86-core (Fedora), qemu-system-x86 (Arch)"
KERNEL_OPTIONS = "console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on rdinit=/init"
QUIET = " quiet loglevel=4"
KVM_GET_API_VERSION, KVM_CREATE_VM = 0xAE00, 0xAE01  # linux/kvm.h
FRAMES = "frames"


@dataclass(frozen=True)
class Machine:
    """What to boot. `memory` in MiB; `share` is the folder that the guest sees as /share, and may change."""

    kernel: str = ""  # a series of the lock file; empty: its first
    memory: int = 2048
    mtu: int = 1500
    share: Path | None = None
    cpus: int = 1  # with two, emulation lost about 2 % of the boots
    accel: str = "auto"  # tcg, kvm, or auto: KVM where a guest boots with it
    netdev: str = ""  # what eth0 is plugged into, in QEMU's words for -netdev; empty: a socket whose frames are dropped
    verbose: bool = False  # the kernel says everything on its console
    lock: Path | None = None  # another lock file than nicemu's own
    mirror: str | None = None  # another mirror than the machine's
    boot_seconds: float = 60  # processor time of a boot before it is given up, on a machine as fast as ours


def find() -> str:
    """The path of QEMU. Raises ConfigError if it is not here or too old."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise ConfigError(f"expected {PROGRAM} in PATH, found none: install {PACKAGES}")
    text = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    if found is not None and (int(found[1]), int(found[2])) < OLDEST:
        raise ConfigError(f"expected QEMU {OLDEST[0]}.{OLDEST[1]} or newer, {program} is {found[1]}.{found[2]}")
    return program


def version() -> str:
    """What QEMU says of itself: `7.2.22 (Debian ...)`."""
    text = subprocess.run([find(), "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    return text.partition("\n")[0].partition("version ")[2]


def check(machine: Machine) -> None:
    """Raises ConfigError for what QEMU would refuse, or the guest could not live with."""
    if machine.memory < 512:
        raise ConfigError(f"expected --memory 512 (MiB) or more, given {machine.memory}")
    if machine.accel not in ("auto", "tcg", "kvm"):
        raise ConfigError(f"expected --accel auto, tcg or kvm, given {machine.accel!r}")
    if not 1 <= machine.cpus <= 64:
        raise ConfigError(f"expected --cpus from 1 to 64, given {machine.cpus}")
    free = available_memory()
    if free is not None and free < machine.memory:
        raise ConfigError(
            f"the guest needs {machine.memory} MiB of memory, {free} MiB are available; "
            "--memory 512 is enough for most programs"
        )
    if machine.share is not None and not machine.share.is_dir():
        raise ConfigError(f"expected --share with a folder, given {str(machine.share)!r}")
    if not 576 <= machine.mtu <= 9216:
        raise ConfigError(f"expected --mtu from 576 to 9216 bytes, given {machine.mtu}")


def available_memory(file: Path = Path("/proc/meminfo")) -> int | None:
    """MiB that programs can still get, None if the host does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) >> 10 if found is not None else None


def has_kvm(device: str = "/dev/kvm") -> bool:
    """Whether KVM is there and ours to use. That a guest boots with it is another question: see guest.run."""
    if platform.machine() != "x86_64":
        return False
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
        os.close(fcntl.ioctl(kvm, KVM_CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(kvm)
    return True


def command(program: str, machine: Machine, image: Image, folder: Path, ports: dict[str, int]) -> list[str]:
    """The command line. `folder` is shared read-only as /lab.

    `ports` are files that QEMU inherits: pipes by the names of virtio-serial ports, and `frames`, the network's socket.
    """
    pipes = {name: file for name, file in ports.items() if name != FRAMES}
    accel = ["-accel", "kvm"] if machine.accel == "kvm" else ["-accel", "tcg,thread=multi"]
    words = [program, *accel, "-machine", "pc", "-cpu", "max", "-smp", str(machine.cpus), "-m", f"{machine.memory}M"]
    words += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append"]
    words += [KERNEL_OPTIONS + ("" if machine.verbose else QUIET)]
    words += ["-netdev", f"{machine.netdev or f'socket,fd={ports[FRAMES]}'},id=net0"]
    words += ["-device", "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:02,romfile="]
    words += ["-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0"]
    words += _share("lab", folder, "on")
    if machine.share is not None:
        words += _share("share", machine.share.resolve(), "off")
    words += ["-device", "virtio-serial-pci"]
    for number, (name, pipe) in enumerate(pipes.items()):
        words += [
            "-add-fd",
            f"fd={pipe},set={number}",
            "-chardev",
            f"file,id=port{number},path=/dev/fdset/{number},append=on",
        ]
        words += ["-device", f"virtserialport,chardev=port{number},name=nicemu.{name}"]
    return words


def _share(tag: str, folder: Path, readonly: str) -> list[str]:
    path = str(folder).replace(",", ",,")  # QEMU's way to have a comma in a value
    words = f"local,id={tag},path={path},security_model=none,readonly={readonly},multidevs=remap"
    return ["-fsdev", words, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def explain(errors: str) -> str:
    """QEMU's last words in one line, with what helps."""
    lines = [line for line in errors.splitlines() if "warning:" not in line and "module ui-" not in line]
    text = " ".join(lines)[-300:] or "no reason given"
    if "fsdev" in text or "9p" in text:
        return f"this QEMU has no 9p file sharing (virtio-9p), which the guest needs: {text}"
    if "Cannot allocate memory" in text:
        return f"the host has not enough memory for the guest (--memory): {text}"
    return text
