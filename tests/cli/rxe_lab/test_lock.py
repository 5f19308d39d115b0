from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import lock
from nicemu.cli.rxe_lab.lock import Group, Lock, Package
from nicemu.config.errors import ConfigError

GOOD = {"name": "kmod", "version": "1:34.2-2+b1~x", "path": "pool/main/k/kmod.deb", "size": 5, "sha256": "0" * 63 + "1"}


def write(folder: Path, **changed: object) -> Path:
    fields = ", ".join(
        f'{name}: "{value}"' if name != "size" else f"size: {value}" for name, value in (GOOD | changed).items()
    )
    file = folder / "packages.yaml"
    group = f"{{suite: trixie, wanted: [kmod], packages: [{{{fields}}}]}}"
    file.write_text(f'userspace: {group}\nkernels: {{"7.3": {group}}}\n')
    return file


def test_the_shipped_lock_file_has_a_user_space_and_three_kernels() -> None:
    locked = lock.read()
    names = {package.name for package in locked.userspace.packages}
    assert {"rdma-core", "python3-pyverbs", "perftest", "python3-pytest", "iproute2", "kmod", "busybox"} <= names
    assert list(locked.kernels) == ["7.3", "6.12", "6.1"]
    assert locked.default_kernel == "7.3"
    assert locked.rdma_core().startswith("56.1")


def test_the_shipped_lock_file_is_what_the_move_would_write() -> None:
    assert lock.FILE.read_text() == lock.text(lock.read())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    group = Group("sid", ("a", "b"), ("c",), (Package(**GOOD), Package(**(GOOD | {"name": "other"}))))  # type: ignore[arg-type]
    locked = Lock(group, {"7.10": group, "6.1": Group("bookworm", ("x",), (), (Package(**GOOD),))})  # type: ignore[arg-type]
    file = tmp_path / "lock"
    file.write_text(lock.text(locked))
    assert lock.read(file) == locked


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sha256": "12"}, "kmod: expected a SHA-256 of 64 hexadecimal digits, given '12'"),
        ({"sha256": "z" * 64}, "invalid literal"),
        ({"size": 0}, "kmod: expected a size in bytes, given 0"),
        ({"path": "/etc/passwd"}, "kmod: expected a path below the mirror's base, given '/etc/passwd'"),
        ({"path": "pool/../../x"}, "expected a path below the mirror's base"),
        ({"name": "../kmod"}, "expected the name of a package, given '../kmod'"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    file = write(tmp_path, **changed)
    with pytest.raises(ConfigError) as raised:
        lock.read(file)
    assert message in str(raised.value) and str(raised.value).startswith(str(file))


@pytest.mark.parametrize("content", ["", "kernels: {}", "[1, 2]", "a: b: c", "userspace: 7\nkernels: {}"])
def test_what_is_no_lock_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    with pytest.raises(ConfigError, match="expected"):
        lock.read(tmp_path / "lock")


def test_an_unknown_kernel_names_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"expected --kernel 7\.3 or 6\.12 or 6\.1, given '5\.10'"):
        lock.read().kernel("5.10")


def test_another_content_has_another_file_name(tmp_path: Path) -> None:
    one, other = Package(**GOOD), Package(**(GOOD | {"sha256": "1" * 64}))  # type: ignore[arg-type]
    assert one.file_name != other.file_name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wanted: [kmod]", "wanted: ['-oDir::Bin::Solvers::=/tmp/x']", "expected the name of a package"),
        ("suite: trixie", 'suite: "sid main\\ndeb [trusted=yes] http://x"', "expected the name of a suite"),
        ('"7.3"', '"../../x"', "expected the series of a kernel, like 7.3, given '../../x'"),
    ],
)
def test_what_would_become_a_word_of_apt_or_a_path_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        lock.read(file)
