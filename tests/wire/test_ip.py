"""Addresses and the UDP source port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.wire.ip import address_of_gid, flow_label_of, mac_of_guid, multicast_mac, source_port_of


@given(st.integers(0, 0xFFFFF))
def test_source_port_folds_the_flow_label(label):
    """0xC000 | (low 14 bits ^ high 6 bits) (6.9)."""
    port = source_port_of(label)
    assert 0xC000 <= port <= 0xFFFF
    assert port & 0x3FFF == label % 0x4000 ^ label // 0x4000


@pytest.mark.parametrize("label, port", [(0, 0xC000), (0x3FFF, 0xFFFF), (0x4000, 0xC001), (0xFFFFF, 0xFFC0)])
def test_source_ports(label, port):
    assert source_port_of(label) == port


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1))
def test_flow_label_of_two_qps(local, remote):
    """Folded by 20 and then 40 bits (6.9); both directions share it."""
    label, product = flow_label_of(local, remote), local * remote
    product ^= product >> 20
    assert label == (product ^ product >> 40) % 2**20 == flow_label_of(remote, local)


def test_qps_of_a_pair_give_one_port():
    assert source_port_of(flow_label_of(0x11, 0xABCD)) == source_port_of(0x11 * 0xABCD & 0xFFFFF)


def test_a_mapped_gid_is_ipv4_and_any_other_ipv6():
    assert address_of_gid(bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 2))) == (4, 0x0A000002)
    assert address_of_gid(b"\xfe\x80" + bytes(13) + b"\x02") == (6, 0xFE80 << 112 | 2)


def test_mac_addresses():
    assert mac_of_guid(0x0216_3EFF_FE00_0001) == 0x00163E000001
    assert multicast_mac(4, 0xE1020304) == 0x01005E020304
    assert multicast_mac(6, 0xFF02 << 112 | 0x12345678) == 0x333312345678
