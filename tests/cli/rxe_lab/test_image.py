import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nicemu.cli.rxe_lab import cache, image
from nicemu.cli.rxe_lab.lock import Lock
from nicemu.config.errors import ConfigError
from tests.cli.rxe_lab import made


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NICEMU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rxe-lab"


@pytest.fixture
def lab(tmp_path: Path) -> tuple[str, Lock]:
    (tmp_path / "mirror").mkdir()
    return made.mirror(tmp_path / "mirror")


def test_an_image_has_the_kernel_its_modules_and_the_user_space(place: Path, lab: tuple[str, Lock]) -> None:
    built = image.ready(lab[1], "9.1", lab[0])
    assert built.kernel.read_bytes() == b"\x7fELF kernel"
    files = made.read_cpio(built.initrd.read_bytes())
    assert {f"{made.MODULES}/{name}.ko" for name in ("rdma_rxe", "ib_uverbs", "ib_core", "9p", "virtio_net")} <= set(
        files
    )
    assert f"{made.MODULES}/sound.ko" not in files
    assert files["init"][1].startswith(b"#!/usr/bin/bash")
    assert files["usr/lib/x86_64/librxe.so"][1] == b"library"
    assert files["usr/bin/sh"][1] == b"bash"
    assert "usr/share/man/man1/bash.1" not in files


def test_a_second_run_builds_nothing(place: Path, lab: tuple[str, Lock], capsys: pytest.CaptureFixture[str]) -> None:
    built = image.ready(lab[1], "9.1", lab[0])
    capsys.readouterr()
    assert image.ready(lab[1], "9.1", "file:///nowhere") == built
    assert capsys.readouterr().err == ""


def test_of_two_builds_at_once_one_waits_for_the_other(
    place: Path, lab: tuple[str, Lock], capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda _: image.ready(lab[1], "9.1", lab[0]), range(2)))
    assert built[0] == built[1]
    assert capsys.readouterr().err.count("building the guest with Linux 9.1, once") == 1


def test_the_same_packages_give_the_same_image(place: Path, lab: tuple[str, Lock]) -> None:
    before = image.ready(lab[1], "9.1", lab[0]).initrd.read_bytes()
    cache.clean(place)
    assert image.ready(lab[1], "9.1", lab[0]).initrd.read_bytes() == before


def test_a_build_that_fails_leaves_no_image(place: Path, lab: tuple[str, Lock]) -> None:
    userspace, kernel = lab[1].userspace, lab[1].kernels["9.1"]
    with pytest.raises(ConfigError, match="expected a kernel in linux-modules"):
        image.ready(Lock(userspace, {"9.1": replace(kernel, packages=kernel.packages[1:])}), "9.1", lab[0])
    assert not (place / "images").exists()
    assert not list(place.glob("building-*"))


def test_a_kernel_without_the_driver_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected the kernel's packages to have the modules rdma_rxe, ib_uverbs"):
        image._modules({"kernel/9p.ko": made.module()}, {"x/modules.builtin": b"kernel/virtio_console.ko\n"})


def test_another_package_is_another_image(lab: tuple[str, Lock]) -> None:
    locked = lab[1]
    one = locked.userspace.packages[0]
    changed = Lock(
        replace(locked.userspace, packages=(replace(one, sha256="0" * 64), *locked.userspace.packages[1:])),
        locked.kernels,
    )
    assert image.digest(locked, "9.1") != image.digest(changed, "9.1")


def test_too_little_space_is_said_before_anything_is_fetched(
    place: Path, lab: tuple[str, Lock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "SPACE", 1 << 60)
    with pytest.raises(ConfigError, match=r"building the guest needs \d+ MB in .*, \d+ MB are free; NICEMU_CACHE"):
        image.ready(lab[1], "9.1", lab[0])
    assert not (place / "packages").exists()


def test_what_an_interrupted_build_left_is_removed(place: Path, lab: tuple[str, Lock]) -> None:
    (place / "building-x").mkdir(parents=True)
    (place / "packages").mkdir()
    (place / "packages" / "old_0123.deb").touch()
    image.ready(lab[1], "9.1", lab[0])
    assert not (place / "building-x").exists()
    assert not (place / "packages" / "old_0123.deb").exists()


def test_an_image_that_nobody_used_for_long_goes(place: Path) -> None:
    for name, days in (("old", 15), ("new", 13)):
        (place / "images" / name).mkdir(parents=True)
        os.utime(place / "images" / name, (0, 1e9 - days * 86400))
    cache.remove_unused(place, now=1e9)
    assert [each.name for each in (place / "images").iterdir()] == ["new"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NICEMU_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ConfigError, match=r"expected a cache folder that can be written: .*; NICEMU_CACHE names another"
    ):
        cache.folder()
