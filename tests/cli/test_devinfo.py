"""``nicemu devinfo`` is ``ibv_devinfo``: the same lines in the same columns. The reference is what ``ibv_devinfo -v``
of rdma-core printed for a soft-RoCE device (``tests/data/ibv_devinfo_rxe.txt``)."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nicemu.cli import devinfo
from nicemu.cli.devinfo import device_lines
from nicemu.pyverbs.device import DeviceAttr, DeviceAttrEx, GIDEntry, ODPCaps, PortAttr

REFERENCE = (Path(__file__).parent.parent / "data/ibv_devinfo_rxe.txt").read_text()
ROCE_V2 = 2
ODP_CAPS = {"general_caps": 1, "rc_odp_caps": 0xFF, "uc_odp_caps": 0, "ud_odp_caps": 0b100011}
"""As the names and the unknown flags in the reference say."""
RENAMED = {"port_lid": "lid", "port_lmc": "lmc"}


def numbers() -> dict[str, int]:
    """Every `label: number` of the reference; of `name (code)` the code."""
    found = {}
    for name, value in re.findall(r"^\t+(\w+):\t+(?:.*\()?(0x[0-9A-Fa-f]+|\d+)(?:kbps)?\)?$", REFERENCE, re.MULTILINE):
        found[RENAMED.get(name, name)] = int(value, 0)
    return found


def guid(name: str) -> int:
    """A GUID as the verbs API has it: big-endian, read by a little-endian host."""
    (text,) = re.findall(rf"{name}:\t+(\S+)", REFERENCE)
    return int.from_bytes(bytes.fromhex(text.replace(":", "")), "little")


def gids() -> Iterator[GIDEntry]:
    for index, text in re.findall(r"GID\[ *(\d+)\]:\t\t(\S+), RoCE v2", REFERENCE):
        raw = socket.inet_pton(socket.AF_INET6, text)
        halves = (int.from_bytes(half, "little") for half in (raw[:8], raw[8:]))
        yield GIDEntry(*halves, int(index), 1, ROCE_V2, 1)


@pytest.fixture
def rxe() -> Any:
    """A context that reports what the reference was printed from."""
    values = numbers() | {"fw_ver": "0.0.0", "link_layer": 2}
    extended, plain, odp, port = DeviceAttrEx(), DeviceAttr(), ODPCaps(), PortAttr()
    plain._values = values | {name: guid(name) for name in ("node_guid", "sys_image_guid")}
    odp._values = dict(ODP_CAPS)
    extended._values, port._values = dict(values), dict(values)
    extended._orig_attr, extended._odp_caps = plain, odp
    return SimpleNamespace(
        query_device_ex=lambda: extended, query_port=lambda number: port, query_gid_table=lambda most: list(gids()),
        num_comp_vectors=values["num_comp_vectors"],
    )  # fmt: skip


DEVICE = SimpleNamespace(name=b"rxe0", transport_type=0)


def test_the_same_device_gives_the_same_text(rxe: Any) -> None:
    assert "\n".join(device_lines(DEVICE, rxe, verbose=True)) + "\n" == REFERENCE


def test_without_v_the_limits_are_left_out(rxe: Any) -> None:
    lines = list(device_lines(DEVICE, rxe, verbose=False))
    whole = REFERENCE.splitlines()
    first, ports = whole.index("\tmax_mr_size:\t\t\t0xffffffffffffffff"), whole.index("\t\tport:\t1")
    assert lines == [*whole[:first], *whole[ports : ports + 8], ""]


def test_what_a_device_has_beyond_rxe(rxe: Any) -> None:
    """Lines of devinfo.c that the reference has no example of."""
    rxe.query_device_ex()._values |= {
        "completion_timestamp_mask": 2**64 - 1, "hca_core_clock": 1000, "raw_packet_caps": 0b101, "max_dm_size": 4096,
        "max_cq_count": 16, "max_cq_period": 4,
    }  # fmt: skip
    text = "\n".join(device_lines(DEVICE, rxe, verbose=True))
    assert "\tcompletion timestamp_mask:\t\t\t0xffffffffffffffff\n\thca_core_clock:\t\t\t1000kHZ\n" in text
    assert "\traw packet caps:\n\t\t\t\t\tC-VLAN stripping offload\n\t\t\t\t\tIP csum offload\n" in text
    assert "\n\n\tcq moderation caps:\n\t\tmax_cq_count:\t16\n\t\tmax_cq_period:\t4 us\n\n" in text
    assert "\tmaximum available device memory:\t4096Bytes\n\n" in text


def test_tag_matching_and_queue_pair_types() -> None:
    caps = SimpleNamespace(max_rndv_hdr_size=16, max_num_tags=127, max_ops=32, max_sge=1, flags=1)
    assert list(devinfo._tag_matching(caps)) == [
        "\tmax_rndv_hdr_size:\t\t16", "\tmax_num_tags:\t\t\t127", "\tmax_ops:\t\t\t32", "\tmax_sge:\t\t\t1", "\tflags:",
        "\t\t\t\t\tIBV_TM_CAP_RC",
    ]  # fmt: skip
    assert list(devinfo._qp_types(1 << 8 | 1 << 4 | 1)) == [
        "\t\tsupported_qp:", "\t\t\t\t\tSUPPORT_RAW_PACKET", "\t\t\t\t\tSUPPORT_UD", "\t\t\t\t\tUnknown flags: 0x1",
    ]  # fmt: skip


def test_a_gid_of_roce_v1_is_written_in_full(rxe: Any) -> None:
    rxe.query_gid_table = lambda most: [GIDEntry(0x80FE, 0x0200_00FE_FF00_5452, 3, 1, 1, 1), GIDEntry(0x80FE, 0, 4, 1)]
    lines = list(device_lines(DEVICE, rxe, verbose=True))
    assert [line for line in lines if "GID[" in line] == [
        "\t\t\tGID[  3]:\t\tfe80:0000:0000:0000:5254:00ff:fe00:0002, RoCE v1"
    ]


def nicemu(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "nicemu", "devinfo", *arguments], capture_output=True, text=True)


TAG_MATCHING = re.compile(r"^\tmax_rndv_hdr_size:.*?^\tflags:$\n", re.MULTILINE | re.DOTALL)
ONLY_SOME_HAVE = re.compile(
    r"GID\[|not supported|hca_core_clock|timestamp_mask|moderation|max_cq_(count|period)|maximum available|supported_qp"
    r"|raw packet caps"
)


def skeleton(text: str) -> list[str]:
    """Labels with their columns, without values, names of flags and what one device has and another lacks."""
    labels = (re.match(r"\t{0,3}(?!\t)[^\t:]+:?\t*", line) for line in TAG_MATCHING.sub("", text).splitlines())
    return [label[0] for label in labels if label and not ONLY_SOME_HAVE.search(label.string)]


def test_the_emulated_device_has_the_same_skeleton() -> None:
    done = nicemu("-v", "-d", "nicemu0")
    assert skeleton(done.stdout) == skeleton(REFERENCE)
    assert done.stdout.startswith("hca_id:\tnicemu0\n") and done.stdout.endswith("\n\n")
    assert re.fullmatch(r"nicemu: program memory is reached by \w+\n", done.stderr)  # no line that ibv_devinfo lacks


def test_the_list_with_a_sysfs_tree(tmp_path: Path) -> None:
    assert nicemu("-l", "--sysfs", str(tmp_path)).stdout == "1 HCA found:\n\tnicemu0\n\n"
    assert (tmp_path / "class/infiniband/nicemu0/node_guid").is_file()


def test_the_list_and_what_is_not_there() -> None:
    assert nicemu("-l").stdout == "1 HCA found:\n\tnicemu0\n\n"
    for arguments, said in ((["-d", "mlx5_0"], "IB device 'mlx5_0' wasn't found"),
                            (["-i", "2"], "Invalid port requested for device")):  # fmt: skip
        done = nicemu(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"nicemu: error: {said}\n")
