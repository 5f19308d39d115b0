"""Moving the lock file: resolve the wanted packages anew with apt, privately, on the machine's mirror.

apt gets its own sources, lists and an empty status file, so nothing is installed and nothing of the machine is read but
its trusted keys: the index files are verified with them.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from nicemu.cli.rxe_lab.lock import Group, Lock, Package
from nicemu.cli.rxe_lab.sources import Unavailable
from nicemu.config.errors import ConfigError

ARCHITECTURE = "amd64"  # of the guest, whatever the host is
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Of the package debian-archive-keyring; without it apt takes the keys it trusts anyway."""

KERNEL_PACKAGES = re.compile(r"linux-(base|image|binary|modules)-(\d+\.\d+)\S*-" + ARCHITECTURE + "$")


def resolve(old: Lock, mirror: str) -> Lock:
    """A lock with what the mirror has today. Raises ConfigError with apt's reason."""
    for program in ("apt-get", "apt-cache"):
        if shutil.which(program) is None:
            raise Unavailable(f"moving the lock file needs {program}, which is not here; a Debian machine has it")
    userspace = _resolved(old.userspace, mirror)
    kernels: dict[str, Group] = {}
    for group in old.kernels.values():
        found = _resolved(group, mirror)
        kernel = [package for package in found.packages if KERNEL_PACKAGES.match(package.name)]
        if not kernel:
            raise ConfigError(f"expected a kernel among the packages of {group.suite}, found none")
        series = KERNEL_PACKAGES.match(kernel[0].name)
        assert series is not None
        kernels[series[2]] = replace(found, packages=tuple(kernel))
    return Lock(userspace, kernels)


def _resolved(group: Group, mirror: str) -> Group:
    with tempfile.TemporaryDirectory(prefix="nicemu-apt-") as scratch:
        configuration = configure(Path(scratch), group.suite, mirror)
        _apt(configuration, "apt-get", "update", "-qq")
        target = ["-t", group.suite] if group.suite.endswith("-backports") else []
        plan = _apt(configuration, "apt-get", "install", "-s", "-y", *target, "--", *group.wanted)
        chosen = dict(re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE))
        for name in group.left_out:
            chosen.pop(name, None)
        exact = [f"{name}={version}" for name, version in sorted(chosen.items())]
        return replace(group, packages=records(_apt(configuration, "apt-cache", "show", *exact)))


def configure(scratch: Path, suite: str, mirror: str) -> Path:
    """apt's configuration below `scratch`: everything in it, the keys the machine's."""
    for folder in ("lists/partial", "cache/archives/partial", "none"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    suites = [suite.removesuffix("-backports"), suite] if suite.endswith("-backports") else [suite]
    options = f"arch={ARCHITECTURE}" + (f" signed-by={KEYRING}" if KEYRING.is_file() else "")
    lines = [f"deb [{options}] {mirror} {each} main\n" for each in suites]
    (scratch / "sources.list").write_text("".join(lines))
    settings = {
        "APT::Architecture": ARCHITECTURE, "APT::Architectures": ARCHITECTURE, "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": scratch / "sources.list", "Dir::Etc::sourceparts": scratch / "none",
        "Dir::Etc::preferences": scratch / "none/p", "Dir::Etc::preferencesparts": scratch / "none",
        "Dir::State::lists": scratch / "lists", "Dir::State::status": scratch / "status",
    }  # fmt: skip
    configuration = scratch / "apt.conf"
    configuration.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    return configuration


def _apt(configuration: Path, *command: str) -> str:
    environment = {"APT_CONFIG": str(configuration), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
    if done.returncode or errors:
        reason = " ".join(errors) or done.stderr.strip() or f"status {done.returncode}"
        raise Unavailable(f"{' '.join(command[:2])} failed: {reason}")
    return done.stdout


def records(shown: str) -> tuple[Package, ...]:
    """What `apt-cache show` says, as packages in order of their names."""
    packages = {}
    for stanza in shown.strip().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        package = Package(
            fields["Package"], fields["Version"], fields["Filename"], int(fields["Size"]), fields["SHA256"]
        )
        packages[package.name] = package
    return tuple(packages[name] for name in sorted(packages))


def changes(old: Lock, new: Lock) -> list[str]:
    """A line for every package that has another version, is new or is gone."""
    before, after = _versions(old), _versions(new)
    lines = [f"Linux {series}: no longer there" for series in old.kernels if series not in new.kernels]
    for key in sorted(before.keys() | after.keys()):
        then, now = before.get(key, "not there"), after.get(key, "not there")
        if then != now:
            lines.append(f"{' '.join(key)}: {then} -> {now}")
    return lines or ["nothing has changed"]


def _versions(lock: Lock) -> dict[tuple[str, str], str]:
    groups = (lock.userspace, *lock.kernels.values())
    return {(group.suite, package.name): package.version for group in groups for package in group.packages}
