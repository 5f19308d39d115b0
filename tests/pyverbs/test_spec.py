"""Flow specs, flow attributes, hash configurations as objects: defaults of masks, text, conversions, the C structs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.abi import flow as abi
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.flow import FlowAction, FlowAttr
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsUserError
from nicemu.pyverbs.spec import EthSpec, Ipv4ExtSpec, Ipv6Spec, Spec, TcpUdpSpec
from nicemu.pyverbs.wq import RwqIndTableInitAttr, RxHashConf, WQAttr, WQInitAttr

MAC = "24:8a:07:a5:28:c8"


def test_a_value_without_a_mask_is_exact_and_a_mask_without_a_value_counts_for_nothing() -> None:
    spec = EthSpec(dst_mac=MAC, src_mac_mask="ff:00:00:00:00:00", ether_type=0x800, vlan_tag=5, vlan_tag_mask=0xFFF)
    assert (spec.dst_mac, spec.dst_mac_mask) == (MAC, "ff:ff:ff:ff:ff:ff")
    assert (spec.src_mac, spec.src_mac_mask) == ("00:00:00:00:00:00", "00:00:00:00:00:00")
    assert (spec.ether_type, spec.ether_type_mask, spec.vlan_tag, spec.vlan_tag_mask) == (0x800, 0xFFFF, 5, 0xFFF)
    ip = Ipv4ExtSpec(dst_ip="1.2.3.4", dst_ip_mask="255.0.0.0", src_ip_mask="255.0.0.0", proto=17, flags=2)
    assert (ip.dst_ip, ip.dst_ip_mask, ip.src_ip, ip.src_ip_mask) == ("1.2.3.4", "255.0.0.0", "0.0.0.0", "0.0.0.0")
    assert (ip.proto, ip.proto_mask, ip.flags, ip.flags_mask, ip.tos, ip.tos_mask) == (17, 255, 2, 255, 0, 0)
    ports = TcpUdpSpec(e.IBV_FLOW_SPEC_UDP, dst_port=80)
    assert (ports.dst_port, ports.dst_port_mask, ports.src_port, ports.src_port_mask) == (80, 0xFFFF, 0, 0)


def test_ipv6_keeps_a_mask_that_comes_alone() -> None:
    spec = Ipv6Spec(dst_ip="a0::1", src_ip_mask="ff::", flow_label=5)
    assert (spec.dst_ip, spec.dst_ip_mask) == ("a0::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
    assert (spec.src_ip, spec.src_ip_mask) == ("::", "ff::")
    assert (spec.flow_label, spec.flow_label_mask, spec.next_hdr, spec.next_hdr_mask) == (5, 0xFFFFF, 0, 0)


def test_sizes_are_those_of_the_c_structs() -> None:
    specs = EthSpec(), Ipv4ExtSpec(), TcpUdpSpec(e.IBV_FLOW_SPEC_TCP), Ipv6Spec()
    assert [spec.size for spec in specs] == [40, 32, 16, 88] == [len(spec._image()) for spec in specs]


def test_every_member_can_be_set() -> None:
    for spec in (EthSpec(), Ipv4ExtSpec(), TcpUdpSpec(e.IBV_FLOW_SPEC_TCP), Ipv6Spec()):
        for name in (*spec._MEMBERS, *(f"{member}_mask" for member in spec._MEMBERS)):
            other = {"mac": MAC, "_ip": "1.2.3.4"}.get(name.replace("_mask", "")[-3:], 7)
            if isinstance(spec, Ipv6Spec) and other == "1.2.3.4":
                other = "::1"
            setattr(spec, name, other)
            assert getattr(spec, name) == other


def test_text() -> None:
    assert str(EthSpec(src_mac=MAC, ether_type=0x800)) == (
        "Spec type       : IBV_FLOW_SPEC_ETH   \nSize            : 40                  \n"
        "Src mac         : 24:8a:07:a5:28:c8    ff:ff:ff:ff:ff:ff   \n"
        "Dst mac         : 00:00:00:00:00:00    00:00:00:00:00:00   \n"
        "Ether type      : 8                    65535               \n"
        "Vlan tag        : 0                    0                   \n"
    )
    assert str(TcpUdpSpec(e.IBV_FLOW_SPEC_UDP, src_port=9, is_inner=True)) == (
        "Spec type       : IBV_FLOW_SPEC_INNER IBV_FLOW_SPEC_UDP\nSize            : 16                  \n"
        "Src port        : 9                    65535               \n"
        "Dst port        : 0                    0                   \n"
    )
    titles = [line.split(":")[0].strip() for line in str(Ipv4ExtSpec()).splitlines()]
    assert titles == ["Spec type", "Size", "Src IP", "Dst IP", "Proto", "ToS", "TTL", "Flags"]
    titles = [line.split(":")[0].strip() for line in str(Ipv6Spec()).splitlines()]
    assert titles[2:] == ["Src IP", "Dst IP", "Flow label", "Next header", "Traffic class", "Hop limit"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="abstract"):
        Spec()
    with pytest.raises(PyverbsError, match="IBV_FLOW_SPEC_TCP or IBV_FLOW_SPEC_UDP"):
        TcpUdpSpec(e.IBV_FLOW_SPEC_ETH)
    makers = (
        lambda: EthSpec(ether_type=1 << 16),
        lambda: EthSpec(dst_mac="100:" * 6),
        lambda: Ipv4ExtSpec(proto=256),
        lambda: Ipv6Spec(flow_label=1 << 32),
    )
    for make in makers:
        with pytest.raises(OverflowError):
            make()
    with pytest.raises(OSError, match="illegal"):
        Ipv4ExtSpec(dst_ip="1.2.3.400")
    with pytest.raises(IndexError):
        EthSpec(dst_mac="11:22")
    with pytest.raises(KeyError):
        Spec.type_to_str(0x1000)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 255), st.binary(min_size=16, max_size=16))
def test_the_c_struct_has_what_was_set_in_network_order(address: int, proto: int, raw: bytes) -> None:
    text = Ipv4ExtSpec._ip_to_str(address)
    assert Ipv4ExtSpec._str_to_ip(text) == address
    image = Ipv4ExtSpec(dst_ip=text, proto=proto)._image()
    assert abi.HEAD.unpack_from(image) == (0x32, 32)
    assert image[12:16] == address.to_bytes(4, "big") and image[16] == proto and image[24:28] == b"\xff" * 4
    spec = Ipv6Spec()
    spec._values["dst_ip"] = raw
    spec.dst_ip = spec.dst_ip
    assert spec._image()[24:40] == raw


def test_flow_attributes() -> None:
    attr = FlowAttr(2, e.IBV_FLOW_ATTR_SNIFFER, 3, 1, e.IBV_FLOW_ATTR_FLAGS_DONT_TRAP)
    assert (attr.num_of_specs, attr.type, attr.priority, attr.port, attr.flags, attr.specs) == (2, 3, 3, 1, 2, [])
    attr.specs.append(EthSpec())
    assert len(attr.specs) == 1
    with pytest.raises(AttributeError):
        attr.specs = []  # type: ignore[misc]
    with pytest.raises(OverflowError):
        attr.priority = 1 << 16
    FlowAction()


def test_hash_configuration() -> None:
    conf = RxHashConf(1, 3, [1, 2, 255], 5)
    assert (conf.rx_hash_function, conf.rx_hash_key_len, conf.rx_hash_fields_mask) == (1, 3, 5)
    assert conf.rx_hash_key == 5 and conf._key_bytes() == b"\x01\x02\xff"
    conf.rx_hash_key = [7]  # type: ignore[assignment]
    assert conf.rx_hash_key_len == 1 and conf._key_bytes() == b"\x07"
    for refused in (lambda: RxHashConf(1, 2, [1]), lambda: setattr(conf, "rx_hash_key_len", 0)):
        with pytest.raises(PyverbsUserError):
            refused()
    with pytest.raises(OverflowError):
        RxHashConf(1, 1, [256])


def test_attributes_of_work_queues_and_tables() -> None:
    attr = WQAttr(1, 2, 3, 4, 5)
    assert (attr.attr_mask, attr.wq_state, attr.curr_wq_state, attr.flags, attr.flags_mask) == (1, 2, 3, 4, 5)
    assert WQInitAttr().wq_type == 0 and WQInitAttr().pd is None
    with pytest.raises(TypeError):
        WQInitAttr(wq_pd=5)  # type: ignore[arg-type]
    for size, wqs in ((0, []), (1, [1, 2, 3])):
        with pytest.raises(PyverbsUserError):
            RwqIndTableInitAttr(size, wqs)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RwqIndTableInitAttr(1)
