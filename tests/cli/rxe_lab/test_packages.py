"""Packages and what is made of them: ar, tar, tree, cpio, kernel."""

import io
import lzma
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.cli.rxe_lab import cpio, deb, vmlinux
from nicemu.cli.rxe_lab.tree import Entry, Tree, merged
from nicemu.config.errors import ConfigError
from tests.cli.rxe_lab import made

NAMES = st.text("abcdefgh.-_", min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(NAMES, st.binary(max_size=9), max_size=5))
def test_ar_members_come_with_their_names_and_contents(members: dict[str, bytes]) -> None:
    file = io.BytesIO(made.ar(members))
    assert {name: file.read(size) for name, size in deb.members(file)} == members


@pytest.mark.parametrize("content", [b"", b"PK", b"!<arch>\n" + b"x" * 60, b"!<arch>\nshort"])
def test_what_is_no_ar_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(ConfigError, match="expected a Debian package: expected"), deb.open_data(tmp_path / "a.deb"):
        pass


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(made.ar({"data.tar.xz": lzma.compress(b"")[:-9]}))
    with pytest.raises(ConfigError, match="expected a Debian package"), deb.open_data(tmp_path / "a.deb"):
        pass


def test_a_package_compressed_with_zstd_is_read(tmp_path: Path) -> None:
    if deb.shutil.which("zstd") is None:
        pytest.skip("no command zstd here")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("./usr/x"), io.BytesIO())
    packed = subprocess.run(["zstd", "-cq"], input=data.getvalue(), stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "a.deb").write_bytes(made.ar({"data.tar.zst": packed}))
    with deb.open_data(tmp_path / "a.deb") as tar:
        assert tar.getnames() == ["./usr/x"]


def test_a_package_compressed_with_zstd_names_the_command_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="install the command zstd"):
        deb.decompressed(b"")


def tree_of(files: dict[str, bytes | str], folder: Path) -> Tree:
    (folder / "a.deb").write_bytes(made.deb(files))
    tree = Tree()
    with deb.open_data(folder / "a.deb") as tar:
        tree.add_tar(tar, lambda path: "doc" not in path)
    return tree


def test_the_folders_that_are_links_since_debian_12_are_merged(tmp_path: Path) -> None:
    tree = tree_of({"bin": "usr/bin", "bin/kmod": b"k", "lib/modules/m.ko": b"m", "usr/doc/x": b"d"}, tmp_path)
    assert tree.entries["usr/bin/kmod"].content == b"k"
    assert tree.entries["usr/lib/modules/m.ko"].content == b"m"
    assert stat.S_ISLNK(tree.entries["bin"].mode)
    assert "usr/doc/x" not in tree


def test_a_hard_link_is_a_copy() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        one = tarfile.TarInfo("./bin/python3.13")
        one.size = 2
        tar.addfile(one, io.BytesIO(b"py"))
        link = tarfile.TarInfo("./usr/bin/python")
        link.type, link.linkname = tarfile.LNKTYPE, "./bin/python3.13"
        tar.addfile(link)
    data.seek(0)
    tree = Tree()
    with tarfile.open(fileobj=data) as tar:
        tree.add_tar(tar, lambda _: True)
    assert tree.entries["usr/bin/python"].content == b"py"


@pytest.mark.parametrize("name", ["../x", "./usr/../../x", "a/.."])
def test_a_path_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a path inside the package"):
        merged(name)


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=9) | NAMES, max_size=8)
)
def test_an_archive_reads_back_as_the_tree(files: dict[str, bytes | str]) -> None:
    tree = Tree()
    for path, content in files.items():
        if any(other != path and (other + "/").startswith(path + "/") for other in files):
            continue  # a file and a folder of the same name
        if isinstance(content, str):
            tree.add_link(path, content)
        else:
            tree.add_file(path, content, 0o640)
    out = io.BytesIO()
    cpio.write(tree, out)
    found = made.read_cpio(out.getvalue())
    assert found == {path: (entry.mode, entry.content) for path, entry in tree.entries.items()}
    paths = list(found)
    for path in paths:
        folder = path.rpartition("/")[0]
        assert not folder or paths.index(folder) < paths.index(path)


def test_archives_that_follow_each_other_read_as_one() -> None:
    one, other = Tree(), Tree()
    one.add_file("lib/x", b"1")
    other.add_file("bin/y", b"22")
    out = io.BytesIO()
    cpio.write(one, out)
    cpio.write(other, out)
    assert set(made.read_cpio(out.getvalue())) == {"lib", "lib/x", "bin", "bin/y"}


def test_a_tree_is_written_to_a_folder(tmp_path: Path) -> None:
    tree = Tree()
    tree.add_file("usr/bin/x", b"1", 0o755)
    tree.add_file("usr/share/y", b"2")
    tree.add_link("usr/bin/z", "x")
    tree.write(tmp_path, lambda path: "share" not in path)
    assert (tmp_path / "usr/bin/z").read_bytes() == b"1"
    assert not (tmp_path / "usr/share/y").exists()


def test_the_kernel_inside_a_bzimage_is_found() -> None:
    assert vmlinux.from_bzimage(made.bzimage(lzma.compress(b"\x7fELF kernel"))) == b"\x7fELF kernel"


@pytest.mark.parametrize("payload", [b"LZ4?", lzma.compress(b"no ELF"), lzma.compress(b"\x7fELF")[:-20] + b"x" * 20])
def test_a_kernel_that_cannot_be_unpacked_boots_as_it_is(payload: bytes) -> None:
    image = made.bzimage(payload)
    assert vmlinux.from_bzimage(image) == image


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path: Path) -> None:
    tree = Tree()
    tree.add_link("usr/lib/out", str(tmp_path / "elsewhere"))
    tree.entries["usr/lib/out/x"] = Entry(stat.S_IFREG | 0o644, b"x")
    (tmp_path / "elsewhere").mkdir()
    tree.write(tmp_path / "here", lambda _: True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("size", ["-60", "-1"])
def test_a_member_of_a_negative_size_is_refused(size: str) -> None:
    header = b"data.tar".ljust(48) + size.encode().ljust(10) + b"`\n"
    with pytest.raises(ValueError, match="expected the size of an ar member"):
        list(deb.members(io.BytesIO(deb.MAGIC + header)))


def test_a_package_that_ends_in_the_middle_of_its_files_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        member = tarfile.TarInfo("usr/bin/x")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(os.urandom(1 << 20)))
    (tmp_path / "a.deb").write_bytes(made.ar({"data.tar.xz": packed.getvalue()[:500_000]}))
    with pytest.raises(ConfigError, match="expected a Debian package"), deb.open_data(tmp_path / "a.deb") as files:
        Tree().add_tar(files, lambda _: True)
