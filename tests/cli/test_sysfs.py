"""``--sysfs DIR``: what programs look up in ``/sys``, in the kernel's formats."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nicemu.lab.sysfs import _rate

ROOT = Path(__file__).parents[2]
LOOK = """
import os
root = os.environ["SYSFS_PATH"]
port = f"{root}/class/infiniband/nicemu0/ports/1"
print(open(f"{port}/state").read(), open(f"{port}/counters/port_xmit_packets").read(), sep="", end="")
"""


def nicemu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nicemu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the default device."""
    folder = tmp_path_factory.mktemp("sys")
    done = nicemu("devinfo", "--sysfs", folder)
    assert done.returncode == 0, done.stderr
    return folder


def read(path: Path) -> str:
    return path.read_text()


def test_the_device(tree: Path):
    device = tree / "class/infiniband/nicemu0"
    assert device.is_symlink()
    assert read(device / "node_type") == "1: CA\n"
    assert read(device / "node_guid") == read(device / "sys_image_guid") == "0216:3eff:fe00:0001\n"
    assert all((device / name).is_file() for name in ("node_desc", "fw_ver", "hca_type", "board_id", "hw_rev"))
    assert (device / "device").resolve() == (tree / "class/net/nicemu0_eth/device").resolve()
    assert os.listdir(device / "device/net") == ["nicemu0_eth"]


def test_the_port(tree: Path):
    port = tree / "class/infiniband/nicemu0/ports/1"
    assert read(port / "state") == "4: ACTIVE\n" and read(port / "phys_state") == "5: LinkUp\n"
    assert read(port / "rate") == "100 Gb/sec (4X EDR)\n" and read(port / "link_layer") == "Ethernet\n"
    assert read(port / "lid") == "0x0\n" and read(port / "cap_mask") == "0x04000000\n"
    assert read(port / "pkeys/0") == "0xffff\n"


def test_gids_with_their_types(tree: Path):
    port = tree / "class/infiniband/nicemu0/ports/1"
    assert read(port / "gids/1") == "fe80:0000:0000:0000:0216:3eff:fe00:0001\n"
    assert read(port / "gids/7") == "0000:0000:0000:0000:0000:0000:0000:0000\n"
    types = {path.name: read(path) for path in (port / "gid_attrs/types").iterdir()}
    assert types == {"0": "IB/RoCE v1\n", "1": "RoCE v2\n", "2": "IB/RoCE v1\n", "3": "RoCE v2\n"}
    assert read(port / "gid_attrs/ndevs/3") == "nicemu0_eth\n"


def test_the_uverbs_device_and_the_network_device(tree: Path):
    assert read(tree / "class/infiniband_verbs/abi_version") == "6\n"
    uverbs = tree / "class/infiniband_verbs/uverbs0"
    assert (read(uverbs / "ibdev"), read(uverbs / "dev"), read(uverbs / "abi_version")) == (
        "nicemu0\n", "231:192\n", "1\n")  # fmt: skip
    assert read(tree / "class/net/nicemu0_eth/address") == "00:16:3e:00:00:01\n"
    assert read(tree / "class/net/nicemu0_eth/speed") == "100000\n"


@pytest.mark.parametrize(
    "width, speed, text", [(1, 1, "2.5 Gb/sec (1X)"), (2, 64, "200 Gb/sec (4X HDR)"), (8, 16, "168 Gb/sec (12X FDR)")]
)
def test_rates(width: int, speed: int, text: str):
    assert _rate(width, speed) == text


def test_a_program_finds_the_tree_and_afterwards_the_counters(tmp_path: Path):
    look = tmp_path / "look.py"
    look.write_text(LOOK)
    done = nicemu("run", "--sysfs", tmp_path / "sys", look)
    assert (done.returncode, done.stdout) == (0, "4: ACTIVE\n0\n"), done.stderr
    done = nicemu("run", "--sysfs", tmp_path / "sys", ROOT / "examples/odp_pingpong.py", 2)
    assert done.returncode == 0, done.stderr
    counters = tmp_path / "sys/class/infiniband/nicemu0/ports/1/counters"
    sent, received = (int(read(counters / f"port_{way}_packets")) for way in ("xmit", "rcv"))
    assert sent == received > 0
    assert int(read(counters / "port_rcv_data")) == int(read(counters / "port_xmit_data")) > 0
    assert int(read(counters.parent / "hw_counters/page_faults")) > 0
    assert read(counters.parent / "hw_counters/lifespan") == "10\n"


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path):
    (tmp_path / "mine").write_text("precious")
    done = nicemu("devinfo", "--sysfs", tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"nicemu: error: {tmp_path}: expected an empty folder or an earlier tree, given one with 'mine'\n"
    )
    done = nicemu("devinfo", "--sysfs", tmp_path / "mine")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
