"""GIDs, address vectors and handles."""

import errno

import pytest

from nicemu.pyverbs.addr import AH, GID, GRH, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import WC
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.utils import gid_str, gid_str_to_array
from nicemu.uverbs import messages

TEXT = "fe80:0000:0000:0000:0200:00ff:fe00:0001"


def test_gid_round_trip():
    gid = GID(TEXT)
    assert gid.gid == str(gid) == TEXT
    gid.gid = "0000:0000:0000:0000:0000:ffff:0a00:0001"
    assert gid.gid.endswith("0a00:0001")


@pytest.mark.parametrize("text", ["fe80::1", "fe80", TEXT + ":0000", TEXT.replace("fe80", "gggg")])
def test_only_the_long_form_is_a_gid(text):
    with pytest.raises(PyverbsUserError, match="Invalid GID value"):
        GID(text)


def test_gid_helpers_agree():
    raw = bytes.fromhex("".join(gid_str_to_array(TEXT)))
    assert gid_str(int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")) == TEXT


def test_global_attr_needs_a_route():
    with pytest.raises(PyverbsUserError, match="gr parameter is None"):
        AHAttr(is_global=1)


def test_route_is_hidden_unless_global():
    attr = AHAttr(port_num=2)
    assert attr.dgid is None and attr.sgid_index is None and attr.port_num == 2


def test_attr_takes_the_route_over():
    attr = AHAttr(is_global=1, gr=GlobalRoute(dgid=GID(TEXT), sgid_index=3, hop_limit=9))
    assert (attr.dgid, attr.sgid_index, attr.hop_limit) == (TEXT, 3, 9)
    assert attr._message().dgid == bytes.fromhex(TEXT.replace(":", ""))
    assert "  sgid index            : 3" in str(attr)


def test_grh():
    grh = GRH(GID(TEXT), GID(TEXT), paylen=7)
    assert grh.dgid == grh.sgid == TEXT and grh.paylen == 7 and grh.hop_limit == 1


def test_handle_is_created_and_destroyed(kernel, pd):
    with AH(pd, attr=AHAttr(is_global=1, gr=GlobalRoute(dgid=GID(TEXT)))) as ah:
        handle = ah._handle
    ah.close()
    assert [command.ah for command in kernel.commands(messages.DestroyAh)] == [handle]


def test_refused_handle(kernel, pd):
    kernel.fail[messages.CreateAh] = errno.EINVAL
    with pytest.raises(PyverbsRDMAError, match="Failed to create AH"):
        AH(pd, attr=AHAttr())


# Back to the sender ---------------------------------------------------------------------------------------------------

OURS = bytes.fromhex("fe80000000000000020000fffe000001")
PEER = bytes.fromhex("fe80000000000000020000fffe000002")
V6 = (6 << 28 | 0x21 << 20 | 0x12345).to_bytes(4, "big") + bytes((0, 8, 17, 64)) + PEER + OURS


def v4(checksum=True):
    """An IPv4 header from 10.0.0.2 to 10.0.0.1, TOS 0x21, TTL 63."""
    header = bytearray(bytes.fromhex("4521001c000040003f110000" + "0a000002" + "0a000001"))
    if checksum:
        total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
        header[10:12] = ((total & 0xFFFF) + (total >> 16) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(header)


def reply(kernel, pd, header, flags=1):
    address = kernel.process.malloc(40)
    kernel.process.write(address, header)
    AH(pd, wc=WC(wc_flags=flags, sl=3), grh=address, port_num=1)
    return kernel.commands(messages.CreateAh)[-1].vector


def test_reply_over_ipv6_goes_to_the_source_gid(kernel, pd):
    vector = reply(kernel, pd, V6)
    assert (vector.is_global, vector.dgid, vector.port_num, vector.sl) == (1, PEER, 1, 3)
    assert (vector.flow_label, vector.traffic_class, vector.hop_limit) == (0x12345, 0x21, 64)
    assert vector.sgid_index == 1, "the RoCE v2 entry of that GID"


@pytest.mark.parametrize(
    ("front", "checksum"), [(bytes(20), True), (bytes(20), False), (b"\x60" + bytes(19), True)],
    ids=["plain", "no checksum", "what lay there looks like IPv6"],
)  # fmt: skip
def test_reply_over_ipv4_goes_to_the_mapped_address(kernel, pd, front, checksum):
    mapped = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1))
    kernel.do_QueryGid = lambda command: messages.GidEntry(3, mapped, 2) if command.index == 3 else None
    vector = reply(kernel, pd, front + v4(checksum))
    assert vector.dgid == bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 2))
    assert (vector.sgid_index, vector.traffic_class, vector.hop_limit, vector.flow_label) == (3, 0x21, 63, 0)


def test_no_grh_no_route(kernel, pd):
    assert reply(kernel, pd, V6, flags=0).is_global == 0


@pytest.mark.parametrize("header", [bytes(40), V6[:24] + bytes(16)], ids=["neither IPv4 nor IPv6", "not for us"])
def test_reply_without_a_way_is_einval(kernel, pd, header):
    with pytest.raises(PyverbsRDMAError, match="Failed to create AH") as info:
        reply(kernel, pd, header)
    assert info.value.error_code == errno.EINVAL


def test_reply_needs_a_readable_grh_and_all_arguments(kernel, pd):
    with pytest.raises(PyverbsRDMAError) as info:
        AH(pd, wc=WC(wc_flags=1), grh=16, port_num=1)
    assert info.value.error_code == errno.EFAULT
    with pytest.raises(KeyError):
        AH(pd, wc=WC(), grh=0)
