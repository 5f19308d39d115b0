"""GIDs, address vectors and handles."""

import errno

import pytest

from nicemu.pyverbs.addr import AH, GID, GRH, AHAttr, GlobalRoute
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
