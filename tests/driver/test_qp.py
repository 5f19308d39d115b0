"""QPs on a device: creation by type, attributes, states."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.abi.command import Command, QpField, Status
from nicemu.abi.verbs import QpAttrMask, QpState, QpType
from nicemu.config.raw_packet_profile import RawPacketProfile
from nicemu.driver import DriverError, cq, pd, qp
from nicemu.driver.qp import Qp
from nicemu.driver.raw_options import check_rate
from nicemu.uverbs.messages import AddressVector, Capabilities, QpAttributes
from tests.driver.bench import Bench
from tests.driver.fake_device import GID

A = QpAttrMask
RC_PATH = {
    (QpState.RESET, QpState.INIT): "PKEY_INDEX PORT ACCESS_FLAGS",
    (QpState.INIT, QpState.RTR): "AV PATH_MTU DEST_QPN RQ_PSN MAX_DEST_RD_ATOMIC MIN_RNR_TIMER",
    (QpState.RTR, QpState.RTS): "TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_QP_RD_ATOMIC",
}
CAPS = Capabilities(16, 16, 2, 2, 0)


def mask(names: str) -> QpAttrMask:
    total = A(0)
    for name in names.split():
        total |= A[name]
    return total


@pytest.fixture
def pair(bench: Bench) -> Qp:
    return make(bench)


def make(bench: Bench, caps: Capabilities = CAPS, kind: int = QpType.RC) -> Qp:
    domain = pd.allocate(bench.open())
    queue = bench.call(cq.create(domain.context, 10, 0, None))
    made: Qp = bench.call(qp.create(domain, kind, (queue, queue), caps, 0))
    return made


def attributes(state: QpState, **values: Any) -> QpAttributes:
    vector = AddressVector(is_global=1, dgid=GID, sgid_index=0)
    fields: dict[str, Any] = {
        "port_num": 1, "path_mtu": 3, "dest_qp_num": 5, "rq_psn": 7, "max_dest_rd_atomic": 2, "min_rnr_timer": 12,
        "timeout": 14, "retry_cnt": 7, "rnr_retry": 7, "sq_psn": 9, "max_rd_atomic": 2, "qp_access_flags": 15,
    }  # fmt: skip
    return QpAttributes(qp_state=state, ah_attr=vector, **(fields | values))


def step(bench: Bench, pair: Qp, new: QpState, names: str, **values: Any) -> None:
    bench.call(qp.modify(pair, attributes(new, **values), mask(names) | A.STATE))


def to_rts(bench: Bench, pair: Qp) -> None:
    for (_, new), names in RC_PATH.items():
        step(bench, pair, new, names)


def refused(bench: Bench, pair: Qp, new: QpState, names: str, **values: Any) -> int | None:
    before = dict(pair.attributes), pair.state, len(bench.device.log)
    with pytest.raises(DriverError) as caught:
        step(bench, pair, new, names, **values)
    assert (dict(pair.attributes), pair.state, len(bench.device.log)) == before, "a failed modify changes nothing"
    return caught.value.errno


def test_to_rts_and_query_gives_everything_back(bench: Bench, pair: Qp) -> None:
    to_rts(bench, pair)
    values = bench.call(qp.query(pair))
    wanted = attributes(QpState.RTS)
    for name in ("qp_state", "port_num", "path_mtu", "dest_qp_num", "rq_psn", "sq_psn", "timeout", "retry_cnt",
                 "rnr_retry", "max_rd_atomic", "max_dest_rd_atomic", "min_rnr_timer", "qp_access_flags"):  # fmt: skip
        assert values[name] == getattr(wanted, name), name
    assert values["ah_attr"].dgid == GID
    assert bench.device.qps[pair.number][QpField.DEST_NIC] == 1


def test_query_sees_a_state_change_by_the_device(bench: Bench, pair: Qp) -> None:
    to_rts(bench, pair)
    bench.device.set_state(pair.number, QpState.ERR)
    assert bench.call(qp.query(pair))["qp_state"] == QpState.ERR
    assert refused(bench, pair, QpState.RTS, "") == errno.EINVAL


def test_reset_forgets_attributes_and_producer_counters(bench: Bench, pair: Qp) -> None:
    to_rts(bench, pair)
    pair.record.view[:] = b"\1" * 16
    step(bench, pair, QpState.RESET, "")
    assert pair.attributes == {} and pair.record.view.tobytes() == bytes(16)


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("PKEY_INDEX PORT ACCESS_FLAGS", {"port_num": 2}), ("PKEY_INDEX PORT ACCESS_FLAGS", {"pkey_index": 1}),
        ("PKEY_INDEX PORT", {}), ("PKEY_INDEX PORT ACCESS_FLAGS QKEY", {}),
    ],
)  # fmt: skip
def test_bad_modify_to_init_is_einval(bench: Bench, pair: Qp, names: str, values: dict[str, int]) -> None:
    assert refused(bench, pair, QpState.INIT, names, **values) == errno.EINVAL


@pytest.mark.parametrize(
    "values",
    [{"path_mtu": 0}, {"path_mtu": 6}, {"max_dest_rd_atomic": 17}, {"min_rnr_timer": 32}, {"dest_qp_num": 1 << 24},
     {"ah_attr": AddressVector()}, {"ah_attr": AddressVector(is_global=1, dgid=GID, sgid_index=5)}],
)  # fmt: skip
def test_bad_attribute_to_rtr_is_einval(bench: Bench, pair: Qp, values: dict[str, Any]) -> None:
    step(bench, pair, QpState.INIT, RC_PATH[QpState.RESET, QpState.INIT])
    vector = values.pop("ah_attr", None)
    wanted = attributes(QpState.RTR, **values)
    if vector is not None:
        wanted.ah_attr = vector
    with pytest.raises(DriverError) as caught:
        bench.call(qp.modify(pair, wanted, mask(RC_PATH[QpState.INIT, QpState.RTR]) | A.STATE))
    assert caught.value.errno == errno.EINVAL and pair.state == QpState.INIT


def test_unknown_destination_is_a_black_hole(bench: Bench, pair: Qp) -> None:
    step(bench, pair, QpState.INIT, RC_PATH[QpState.RESET, QpState.INIT])
    wanted = attributes(QpState.RTR)
    wanted.ah_attr = AddressVector(is_global=1, dgid=bytes(16), sgid_index=0)
    bench.call(qp.modify(pair, wanted, mask(RC_PATH[QpState.INIT, QpState.RTR]) | A.STATE))
    assert bench.device.qps[pair.number][QpField.DEST_NIC] == 0


@pytest.mark.parametrize("field", ["max_send_wr", "max_recv_wr", "max_send_sge", "max_recv_sge", "max_inline_data"])
def test_a_capability_over_the_devices_is_einval(bench: Bench, field: str) -> None:
    values = {name: getattr(CAPS, name) for name in Capabilities.__slots__} | {field: 1 << 20}
    for kind in (QpType.RC, QpType.UD):
        with pytest.raises(DriverError) as caught:
            make(bench, Capabilities(**values), kind)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("kind", "number"), [(5, errno.EINVAL), (77, errno.EINVAL)])
def test_types_that_are_not_there(bench: Bench, kind: int, number: int) -> None:
    with pytest.raises(DriverError) as caught:
        make(bench, kind=kind)
    assert caught.value.errno == number


def test_a_failed_create_gives_everything_back(bench: Bench) -> None:
    bench.device.refuse[Command.CREATE_QP] = Status.NO_MEMORY
    with pytest.raises(DriverError) as caught:
        make(bench)
    assert caught.value.errno == errno.ENOMEM
    assert bench.device.sq_entries == set()
    assert [domain.users for domain in bench.driver.pds] == [0] and [q.users for q in bench.driver.cqs] == [0]


def test_rings_and_create_command_agree(bench: Bench, pair: Qp) -> None:
    params = next(p for opcode, p in bench.device.log if opcode == Command.CREATE_QP)
    assert params[0] == pair.number and params[2] == pair.pd.number
    assert params[5:11] == (pair.send_ring.address, 16, 128, pair.recv_ring.address, 16, 64)
    assert len(pair.send_ring.view) == 16 * 128 and params[5] % 4096 == 0


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD])
def test_only_raw_packet_qps_have_a_rate_limit(bench: Bench, kind: int) -> None:
    pair = make(bench, kind=kind)
    pair.state = QpState.RTS
    assert refused(bench, pair, QpState.RTS, "RATE_LIMIT", rate_limit=0) == errno.EINVAL


def test_a_rate_out_of_the_devices_range_is_einval(bench: Bench, pair: Qp) -> None:
    """``mlx5_rl_add_rate``; 0 means no limit."""
    most = pair.device.profile.raw_packet.qp_rate_limit_max_kbps
    for rate in (0, most):
        qp.check_attributes(pair.device, attributes(QpState.RTS, rate_limit=rate), A.RATE_LIMIT)
    with pytest.raises(DriverError) as caught:
        qp.check_attributes(pair.device, attributes(QpState.RTS, rate_limit=most + 1), A.RATE_LIMIT)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("profile", [None, RawPacketProfile(qp_rate_limit_max_kbps=0)])
def test_a_device_that_paces_nothing_may_be_told_so(profile: RawPacketProfile | None) -> None:
    check_rate(profile, 0)
    with pytest.raises(DriverError) as caught:
        check_rate(profile, 1000)
    assert caught.value.errno == errno.EINVAL
