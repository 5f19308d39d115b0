"""Flow rules, work queues, indirection tables, RSS QPs in the driver: what is refused, and who keeps whom."""

from __future__ import annotations

import errno
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicemu.abi import flow as abi
from nicemu.abi.command import Command
from nicemu.abi.verbs import QpAttrMask, QpType, WqAttrMask, WqFlag, WqState
from nicemu.config import NicProfile
from nicemu.config.raw_packet_profile import RawPacketProfile
from nicemu.driver import DriverError, context, cq, flow, flow_spec, qp, rss, rwq_ind_table, wq
from nicemu.driver.flow import FlowAttributes
from nicemu.driver.raw_options import RawOptions
from nicemu.tables.raw_records import VLAN_PRESENT, MatchField
from tests.driver.bench import Bench
from tests.driver.objects import CAPS, Objects

MAC = bytes.fromhex("0150561920a7")
ETH = abi.emit(abi.ETH, (MAC, bytes(6), 0x0800, 0x0C0C), (b"\xff" * 6, bytes(6), 0xFFFF, 0x0FFF))
IPV4 = abi.emit(abi.IPV4_EXT, (0x01010101, 0x02020202, 17, 0, 64, 2), (0xFFFFFFFF, 0xFFFF0000, 255, 0, 0, 7))
IPV6 = abi.emit(abi.IPV6, (bytes(16), b"\xff" * 16, 5, 6, 7, 8), (bytes(16), b"\xf0" * 16, 0xFFFFF, 255, 0, 255))
UDP = abi.emit(abi.UDP, (5678, 1234), (0xFFFF, 0))


def errno_of(call: Any) -> int | None:
    """errno of a refusal."""
    with pytest.raises(DriverError) as caught:
        call()
    return caught.value.errno


class Raw(Objects):
    """With a raw packet QP, and calls run to their end."""

    def __init__(self, profile: NicProfile | None = None) -> None:
        super().__init__(Bench() if profile is None else Bench(profile=profile))
        self.run = self.bench.call

    def raw_qp(self, flags: int = 0, tso: int = 0) -> Any:
        return self.run(qp.create(self.pd, QpType.RAW_PACKET, (self.cq, self.cq), CAPS, 0, RawOptions(flags, tso)))

    def rule(self, pair: Any, specs: bytes = b"", count: int = 0, **changes: int) -> Any:
        values = {"type": 0, "priority": 0, "port": 1, "flags": 0} | changes
        attributes = FlowAttributes(num_of_specs=count, specs=specs, **values)
        return self.run(flow.create(pair, attributes))

    def wq(self, **changes: Any) -> Any:
        values = {"kind": 0, "size": (8, 1), "flags": 0} | changes
        return self.run(wq.create(self.pd, self.cq, values["kind"], values["size"], values["flags"]))

    def table(self, *wqs: Any, log: int | None = None) -> Any:
        size = len(wqs).bit_length() - 1 if log is None else log
        return self.run(rwq_ind_table.create(self.context, size, wqs))

    def rss(self, table: Any, function: int = 1, key: bytes = bytes(40), fields: int = 3, flags: int = 0) -> Any:
        hashing = rss.Hash(function, key, fields)
        return self.run(rss.create(self.pd, table, hashing, RawOptions(flags), CAPS))


@pytest.fixture
def raw() -> Raw:
    return Raw()


# Specs ----------------------------------------------------------------------------------------------------------------


def test_specs_become_values_and_masks() -> None:
    match = flow_spec.parse(ETH + IPV4 + UDP, 3)
    assert match[MatchField.DST_MAC] == (0x0150561920A7, (1 << 48) - 1)
    assert match[MatchField.VLAN] == (VLAN_PRESENT | 0x0C0C, VLAN_PRESENT | 0x0FFF)
    assert match[MatchField.DST_LOW] == (0x02020202, 0xFFFF0000) and match[MatchField.L3] == (4, 0xF)
    assert match[MatchField.DST_PORT] == (5678, 0xFFFF) and match[MatchField.L4] == (17, 0xFF)
    words = struct.unpack("<34q", flow_spec.words(match))
    assert words[MatchField.SRC_PORT] == 0 and words[MatchField.DST_LOW] == 0x02020000


def test_ipv6_addresses_are_two_halves() -> None:
    match = flow_spec.parse(IPV6, 1)
    assert match[MatchField.DST_HIGH] == (-1, -0x0F0F0F0F0F0F0F10) and match[MatchField.SRC_LOW] == (0, 0)
    assert match[MatchField.PROTO] == (6, 255) and match[MatchField.TTL] == (8, 255)


def test_no_vlan_mask_asks_for_no_tag() -> None:
    bare = abi.emit(abi.ETH, (MAC, bytes(6), 0, 0x0C0C), (b"\xff" * 6, bytes(6), 0, 0))
    assert flow_spec.parse(bare, 1)[MatchField.VLAN][1] == 0


@pytest.mark.parametrize(
    ("specs", "count", "expected"),
    [
        (ETH, 2, errno.EINVAL),
        (ETH[:-1], 1, errno.EINVAL),
        (ETH[:3], 1, errno.EINVAL),
        (abi.HEAD.pack(abi.ETH, 41) + ETH[6:] + b"\0", 1, errno.EINVAL),
        (abi.HEAD.pack(abi.ETH, 0) + ETH[6:], 1, errno.EINVAL),
        (abi.HEAD.pack(0x99, 40) + ETH[6:], 1, errno.EINVAL),
        (ETH + ETH, 2, errno.EINVAL),
        (IPV4 + IPV6, 2, errno.EINVAL),
        (ETH + IPV6, 2, errno.EINVAL),
        (abi.emit(abi.ETH | abi.INNER, (MAC, MAC, 0, 0), (MAC, MAC, 0, 0)), 1, errno.EOPNOTSUPP),
        (abi.HEAD.pack(0x50, 16) + bytes(10), 1, errno.EOPNOTSUPP),
        (abi.HEAD.pack(0x1001, 8) + bytes(2), 1, errno.EOPNOTSUPP),
    ],
)
def test_specs_that_are_none_are_refused(specs: bytes, count: int, expected: int) -> None:
    assert errno_of(lambda: flow_spec.parse(specs, count)) == expected


@given(st.binary(max_size=200), st.integers(0, 255))
def test_any_bytes_are_specs_or_refused(data: bytes, count: int) -> None:
    try:
        assert len(flow_spec.words(flow_spec.parse(data, count))) == 34 * 8
    except DriverError as error:
        assert error.errno in (errno.EINVAL, errno.EOPNOTSUPP)


@given(st.lists(st.sampled_from([ETH, IPV4, IPV6, UDP]), max_size=4), st.data())
def test_changed_specs_too(specs: list[bytes], data: st.DataObject) -> None:
    image = bytearray(b"".join(specs))
    for _ in range(data.draw(st.integers(0, 3)) if image else 0):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    test_any_bytes_are_specs_or_refused.hypothesis.inner_test(bytes(image), len(specs))  # type: ignore[attr-defined]


# Rules ----------------------------------------------------------------------------------------------------------------


def test_a_rule_keeps_its_qp(raw: Raw) -> None:
    pair = raw.raw_qp()
    rule = raw.rule(pair, ETH + IPV4 + UDP, 3)
    assert errno_of(lambda: raw.run(qp.destroy(pair))) == errno.EBUSY
    raw.run(flow.destroy(rule))
    raw.run(qp.destroy(pair))
    assert [int(opcode) for opcode, *_ in raw.bench.device.log[-3:]] == [
        Command.CREATE_FLOW, Command.DESTROY_FLOW, Command.DESTROY_QP]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"type": 4}, errno.EINVAL),
        ({"port": 2}, errno.EINVAL),
        ({"port": 0}, errno.EINVAL),
        ({"flags": 4}, errno.EOPNOTSUPP),
        ({"flags": 8}, errno.EINVAL),
        ({"flags": 2, "type": 1}, errno.EINVAL),
    ],
)
def test_attributes_of_a_rule(raw: Raw, changes: dict[str, int], expected: int) -> None:
    pair = raw.raw_qp()
    assert errno_of(lambda: raw.rule(pair, **changes)) == expected
    assert len(raw.bench.driver.flows) == 0 and pair.users == 0


def test_default_rules_take_no_specs(raw: Raw) -> None:
    pair = raw.raw_qp()
    assert errno_of(lambda: raw.rule(pair, ETH, 1, type=1)) == errno.EINVAL
    for kind in (1, 2, 3):
        raw.rule(pair, type=kind)


@pytest.mark.parametrize(("kind", "expected"), [(QpType.UD, errno.EOPNOTSUPP), (QpType.RC, errno.EINVAL)])
def test_rules_are_for_raw_packet_qps(raw: Raw, kind: QpType, expected: int) -> None:
    pair = raw.qp(kind)
    assert errno_of(lambda: raw.rule(pair)) == expected


def test_out_of_rules() -> None:
    raw = Raw(NicProfile(raw_packet=RawPacketProfile(max_flows=1)))
    pair = raw.raw_qp()
    rule = raw.rule(pair)
    assert errno_of(lambda: raw.rule(pair)) == errno.ENOMEM
    raw.run(flow.destroy(rule))
    raw.rule(pair)


# Work queues ----------------------------------------------------------------------------------------------------------


def modify(raw: Raw, queue: Any, mask: int, **values: int) -> None:
    attributes = SimpleNamespace(**{"wq_state": 0, "curr_wq_state": 0, "flags": 0, "flags_mask": 0} | values)
    raw.run(wq.modify(queue, mask, attributes))


def test_states_of_a_work_queue(raw: Raw) -> None:
    queue = raw.wq()
    for state in (WqState.RDY, WqState.ERR, WqState.RESET, WqState.RDY, WqState.RESET, WqState.ERR):
        modify(raw, queue, WqAttrMask.STATE, wq_state=state)
        assert queue.state == state
    assert errno_of(lambda: modify(raw, queue, WqAttrMask.STATE, wq_state=WqState.RDY)) == errno.EINVAL
    assert errno_of(lambda: modify(raw, queue, WqAttrMask.STATE, wq_state=3)) == errno.EINVAL
    assert errno_of(lambda: modify(raw, queue, 8)) == errno.EINVAL
    wrong = WqAttrMask.STATE | WqAttrMask.CURR_STATE
    assert errno_of(lambda: modify(raw, queue, wrong, curr_wq_state=WqState.RDY)) == errno.EINVAL
    modify(raw, queue, wrong, curr_wq_state=WqState.ERR)


def test_flags_of_a_work_queue(raw: Raw) -> None:
    queue = raw.wq(flags=WqFlag.SCATTER_FCS | WqFlag.PCI_WRITE_END_PADDING)
    modify(raw, queue, WqAttrMask.FLAGS, flags=WqFlag.CVLAN_STRIPPING, flags_mask=WqFlag.CVLAN_STRIPPING)
    assert queue.flags & WqFlag.CVLAN_STRIPPING and queue.flags & WqFlag.SCATTER_FCS
    assert errno_of(lambda: raw.wq(flags=WqFlag.DELAY_DROP)) == errno.EOPNOTSUPP
    assert errno_of(lambda: raw.wq(flags=16)) == errno.EINVAL


@pytest.mark.parametrize("changes", [{"kind": 1}, {"size": (0, 1)}, {"size": (1 << 20, 1)}, {"size": (1, 99)}])
def test_a_work_queue_that_cannot_be(raw: Raw, changes: dict[str, Any]) -> None:
    assert errno_of(lambda: raw.wq(**changes)) == errno.EINVAL


def test_who_keeps_whom(raw: Raw) -> None:
    queue = raw.wq()
    table = raw.table(queue, queue)
    pair = raw.rss(table)
    assert errno_of(lambda: raw.run(cq.destroy(raw.cq))) == errno.EBUSY
    assert errno_of(lambda: raw.run(wq.destroy(queue))) == errno.EBUSY
    assert errno_of(lambda: raw.run(rwq_ind_table.destroy(table))) == errno.EBUSY
    rule = raw.rule(pair)
    raw.run(flow.destroy(rule))
    raw.run(qp.destroy(pair))
    raw.run(rwq_ind_table.destroy(table))
    raw.run(wq.destroy(queue))
    raw.run(cq.destroy(raw.cq))


def test_tables_that_cannot_be(raw: Raw) -> None:
    queue = raw.wq()
    assert errno_of(lambda: raw.table(queue, log=1)) == errno.EINVAL
    assert errno_of(lambda: raw.table(queue, log=-1)) == errno.EINVAL
    assert errno_of(lambda: raw.table(*[queue] * 512)) == errno.EINVAL
    raw.table(*[queue] * 256)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"function": 0}, errno.EOPNOTSUPP),
        ({"key": bytes(39)}, errno.EINVAL),
        ({"fields": 1 << 8}, errno.EINVAL),
        ({"fields": 1 | 4}, errno.EINVAL),
        ({"fields": 16 | 64}, errno.EINVAL),
        ({"fields": 0}, errno.EINVAL),
        ({"flags": 512}, errno.EINVAL),
    ],
)
def test_rss_qps_that_cannot_be(raw: Raw, changes: dict[str, Any], expected: int) -> None:
    table = raw.table(raw.wq(), raw.wq())
    assert errno_of(lambda: raw.rss(table, **changes)) == expected
    assert table.users == 0


def test_an_rss_qp_has_no_state(raw: Raw) -> None:
    pair = raw.rss(raw.table(raw.wq()), fields=0)
    assert errno_of(lambda: raw.run(qp.query(pair))) == errno.EOPNOTSUPP
    assert errno_of(lambda: raw.run(qp.modify(pair, SimpleNamespace(), QpAttrMask.STATE))) == errno.EOPNOTSUPP


def test_closing_the_context_destroys_all_of_it(raw: Raw) -> None:
    table = raw.table(raw.wq(), raw.wq())
    raw.rule(raw.rss(table))
    raw.rule(raw.raw_qp())
    raw.run(context.close(raw.context))
    driver = raw.bench.driver
    assert [len(h) for h in (driver.flows, driver.qps, driver.ind_tables, driver.wqs, driver.cqs)] == [0] * 5


# Raw packet QPs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "tso", "expected"),
    [(512 | 256 | 2048, 0, None), (2, 0, errno.EOPNOTSUPP), (1024, 0, errno.EOPNOTSUPP), (1, 0, errno.EINVAL),
     (0, 1024, None), (0, 1025, errno.EINVAL)],
)  # fmt: skip
def test_creation_flags(raw: Raw, flags: int, tso: int, expected: int | None) -> None:
    if expected is None:
        made = raw.raw_qp(flags, tso)
        assert made.send_stride >= 64 + 16 * CAPS.max_send_sge + tso
    else:
        assert errno_of(lambda: raw.raw_qp(flags, tso)) == expected


def test_a_device_without_raw_packets() -> None:
    raw = Raw(NicProfile(raw_packet=None))
    assert errno_of(raw.raw_qp) == errno.EOPNOTSUPP
    assert errno_of(raw.wq) == errno.EOPNOTSUPP
    assert errno_of(lambda: raw.table()) == errno.EOPNOTSUPP


def test_a_device_without_offloads() -> None:
    raw = Raw(NicProfile(raw_packet=RawPacketProfile(cvlan_stripping=False, scatter_fcs=False, max_tso=0)))
    for flags, tso in ((512, 0), (256, 0), (0, 64)):
        assert errno_of(lambda flags=flags, tso=tso: raw.raw_qp(flags, tso)) == errno.EOPNOTSUPP  # type: ignore[misc]
