"""What a QP of each type has: queues, parents, what CREATE_QP says; and its address words."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nicemu.abi.command import Command, QpField
from nicemu.abi.verbs import AsyncEvent, QpAttrMask, QpState, QpType
from nicemu.config import NicProfile
from nicemu.driver import DriverError, attributes, context, qp
from nicemu.uverbs.messages import AddressVector, QpAttributes
from tests.driver.bench import Bench
from tests.driver.fake_device import GID
from tests.driver.objects import CAPS, Objects

A = QpAttrMask


def created(bench: Bench) -> tuple[int, ...]:
    """Parameters of the last CREATE_QP."""
    return [p for opcode, p in bench.device.log if opcode == Command.CREATE_QP][-1]


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD])
def test_a_qp_has_both_queues(bench: Bench, made: Objects, kind: QpType) -> None:
    pair = made.qp(kind)
    assert created(bench)[:11] == (
        pair.number, kind, made.pd.number, made.cq.number, made.cq.number, pair.send_ring.address, 16, 128,
        pair.recv_ring.address, 16, 64,
    )  # fmt: skip
    assert pair.caps == CAPS


@pytest.mark.parametrize("kind", [QpType.RC, QpType.UC, QpType.UD])
def test_with_an_srq_the_receive_ring_is_its_number(bench: Bench, made: Objects, kind: QpType) -> None:
    shared = made.srq()
    pair = made.qp(kind, shared)
    assert created(bench)[8:10] == (shared.number, 0) and pair.recv_slots == 0 and len(pair.recv_ring.view) == 0
    assert (pair.caps.max_recv_wr, pair.caps.max_recv_sge, pair.caps.max_send_wr) == (0, 0, 16)
    assert shared.users == 1
    bench.call(qp.destroy(pair))
    assert shared.users == 0


def test_an_xrc_initiator_has_no_receive_queue(bench: Bench, made: Objects) -> None:
    pair = bench.call(qp.create(made.pd, QpType.XRC_SEND, (made.cq, None), CAPS, 0))
    params = created(bench)
    assert params[3:5] == (made.cq.number,) * 2 and params[6] == 16 and params[8:10] == (0, 0)
    assert pair.caps.max_recv_wr == 0 and made.cq.users == 2


def test_an_xrc_target_has_its_domain_and_nothing_else(bench: Bench, made: Objects) -> None:
    domain = made.xrcd()
    entries = len(bench.device.sq_entries)
    pair = made.target(domain)
    params = created(bench)
    assert params[:11] == (pair.number, QpType.XRC_RECV, 0, 0, 0, domain.number, 0, 0, 0, 0, 0)
    assert params[11] == pair.record.address and params[13] == 0
    assert (pair.caps.max_send_wr, pair.caps.max_recv_wr, pair.caps.max_inline_data) == (0, 0, 0)
    assert domain.users == 1 and made.pd.users == 0 and len(bench.device.sq_entries) == entries
    bench.call(qp.destroy(pair))
    assert domain.users == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda o: qp.create(o.pd, QpType.XRC_RECV, (), CAPS, 0),
        lambda o: qp.create(o.xrcd(), QpType.RC, (o.cq, o.cq), CAPS, 0),
        lambda o: qp.create(o.pd, QpType.RC, (o.cq, None), CAPS, 0),
        lambda o: qp.create(o.pd, QpType.XRC_SEND, (None, None), CAPS, 0),
        lambda o: qp.create(o.pd, QpType.RC, (o.cq, o.cq, o.xrc_srq(o.xrcd())), CAPS, 0),
        lambda o: qp.create(o.pd, QpType.RC, (o.cq, Objects(o.bench).cq), CAPS, 0),
        lambda o: qp.create(o.pd, QpType.RC, (o.cq, o.cq, Objects(o.bench).srq()), CAPS, 0),
    ],
    ids=["target of a PD", "RC of a domain", "no receive CQ", "no send CQ", "XRC SRQ", "CQ elsewhere", "SRQ elsewhere"],
)
def test_wrong_objects_are_einval(bench: Bench, made: Objects, make: Any) -> None:
    users = made.pd.users
    with pytest.raises(DriverError) as caught:
        bench.call(make(made))
    assert caught.value.errno == errno.EINVAL and not bench.device.qps
    assert made.pd.users in (users, users + 1), "an SRQ may have been made, no QP"


def test_a_device_without_xrc_has_no_xrc_qps() -> None:
    bench = Bench(profile=NicProfile(max_xrcd=0, max_srq=0))
    made = Objects(bench)
    for make in (lambda: made.qp(QpType.XRC_SEND), made.xrcd, made.srq):
        with pytest.raises(DriverError) as caught:
            make()
        assert caught.value.errno == errno.EOPNOTSUPP
    flags = attributes.device_attributes(bench.driver.devices[0])["device_cap_flags"]
    assert isinstance(flags, int) and not flags & (attributes.XRC | attributes.SRQ_RESIZE)
    caps = attributes.odp_caps(bench.driver.devices[0])
    assert caps["odp_xrc_caps"] == 0 and not caps["odp_rc_caps"] & attributes.ODP_SRQ_RECV


# Attributes on their way to the device --------------------------------------------------------------------------------

INIT = A.STATE | A.PKEY_INDEX | A.PORT | A.ACCESS_FLAGS
RTR = A.STATE | A.AV | A.PATH_MTU | A.DEST_QPN | A.RQ_PSN


def test_the_address_vector_reaches_the_qp_context(bench: Bench, made: Objects) -> None:
    pair = made.qp(QpType.UC)
    vector = AddressVector(is_global=1, dgid=GID, sgid_index=1, flow_label=0x12345, hop_limit=9, traffic_class=7, sl=3)
    bench.call(qp.modify(pair, QpAttributes(qp_state=QpState.INIT, port_num=1), INIT))
    bench.call(qp.modify(pair, QpAttributes(qp_state=QpState.RTR, path_mtu=3, ah_attr=vector), RTR))
    words = bench.device.qps[pair.number]
    high, low = (int.from_bytes(half, "big", signed=True) for half in (GID[:8], GID[8:]))
    assert high < 0, "the halves are signed"
    wanted = {
        QpField.DEST_NIC: 1, QpField.SGID_INDEX: 1, QpField.DGID_HIGH: high, QpField.DGID_LOW: low,
        QpField.FLOW_LABEL: 0x12345, QpField.TRAFFIC_CLASS: 7, QpField.HOP_LIMIT: 9, QpField.SL: 3,
    }  # fmt: skip
    assert {field: words[field] for field in wanted} == wanted


def test_ud_goes_to_rts_with_qkey_and_psn(bench: Bench, made: Objects) -> None:
    pair = made.qp(QpType.UD)
    step = QpAttributes(qp_state=QpState.INIT, port_num=1, qkey=0x11111111)
    bench.call(qp.modify(pair, step, A.STATE | A.PKEY_INDEX | A.PORT | A.QKEY))
    bench.call(qp.modify(pair, QpAttributes(qp_state=QpState.RTR), A.STATE))
    bench.call(qp.modify(pair, QpAttributes(qp_state=QpState.RTS, sq_psn=0x1000005), A.STATE | A.SQ_PSN))
    values = bench.call(qp.query(pair))
    assert (values["qp_state"], values["qkey"], values["sq_psn"]) == (QpState.RTS, 0x11111111, 5)


def rts(bench: Bench, made: Objects) -> Any:
    pair = made.qp(QpType.UD)
    bench.device.set_state(pair.number, QpState.RTS)
    pair.state = QpState.RTS
    return pair


def test_draining_is_asked_for_with_its_event_and_seen_in_query(bench: Bench, made: Objects) -> None:
    pair = rts(bench, made)
    drain = QpAttributes(qp_state=QpState.SQD, en_sqd_async_notify=1)
    bench.call(qp.modify(pair, drain, A.STATE | A.EN_SQD_ASYNC_NOTIFY))
    words = bench.device.qps[pair.number]
    assert words[QpField.EN_SQD_ASYNC_NOTIFY] == 1 and words[QpField.STATE] == QpState.SQD
    words[QpField.SQ_DRAINING] = 1
    assert bench.call(qp.query(pair))["sq_draining"] == 1


def test_a_qp_that_the_device_put_into_sqe_comes_back_with_cur_state(bench: Bench, made: Objects) -> None:
    pair = rts(bench, made)
    bench.device.set_state(pair.number, QpState.SQE)
    back = QpAttributes(qp_state=QpState.RTS, cur_qp_state=QpState.SQE)
    bench.call(qp.modify(pair, back, A.STATE | A.CUR_STATE))
    words = bench.device.qps[pair.number]
    assert (words[QpField.CUR_STATE], words[QpField.STATE]) == (QpState.SQE, QpState.RTS)


def test_query_tells_of_sqe(bench: Bench, made: Objects) -> None:
    pair = rts(bench, made)
    bench.device.set_state(pair.number, QpState.SQE)
    values = bench.call(qp.query(pair))
    assert values["qp_state"] == values["cur_qp_state"] == QpState.SQE


# Events and the end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind"),
    [(AsyncEvent.QP_LAST_WQE_REACHED, "qp"), (AsyncEvent.SRQ_LIMIT_REACHED, "srq"), (AsyncEvent.SRQ_ERR, "srq")],
)
def test_events_go_to_the_owner_of_the_object(bench: Bench, made: Objects, event: AsyncEvent, kind: str) -> None:
    seen: list[Any] = []
    made.context.event_handler = lambda *report: seen.append(report)
    Objects(bench).context.event_handler = lambda *report: seen.append("another context")
    made.srq()
    shared = made.srq()
    target = shared if kind == "srq" else made.target(made.xrcd())
    bench.device.post(2, 1, event, (target.number, 0, 0, 0, 0, 0))
    bench.device.post(2, 1, event, (999, 0, 0, 0, 0, 0))
    bench.run()
    assert seen == [(event, kind, target.handle)]


def test_closing_a_context_takes_srqs_domains_and_handles_with_it(bench: Bench, made: Objects) -> None:
    domain, shared = made.xrcd(), made.srq()
    made.xrc_srq(domain)
    made.target(domain)
    made.qp(QpType.RC, shared)
    bench.call(context.close(made.context))
    driver, device = bench.driver, bench.driver.devices[0]
    assert not any(map(len, (driver.qps, driver.srqs, driver.xrcds, driver.cqs, driver.pds)))
    assert not bench.device.srqs and not bench.device.qps and not device.xrc_domains and not device.srqs
