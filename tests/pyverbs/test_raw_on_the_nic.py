"""Raw packet QPs, flows, RSS through the library: close order, permission, TSO, VLANs, two NICs on a switch."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nicemu.config import load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CQEX, CqInitAttrEx
from nicemu.pyverbs.device import Context, get_device_list
from nicemu.pyverbs.flow import Flow, FlowAttr
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from nicemu.pyverbs.spec import EthSpec, Ipv4ExtSpec, TcpUdpSpec
from nicemu.pyverbs.wq import WQ, RwqIndTable, RwqIndTableInitAttr, RxHashConf, WQAttr, WQInitAttr
from nicemu.pyverbs.wr import SGE, RecvWR, SendWR
from tests.nic.raw import ethernet, ipv4, tcp, udp
from tests.observe.test_packet_capture import packets

MASK = e.ibv_qp_init_attr_mask
DST = "01:50:56:19:20:a7"
FRAME = ethernet(ipv4(udp(b"raw" * 20)), 0x0800)


OPENED: list[Context] = []


def close_all() -> None:
    """Before their lab goes."""
    while OPENED:
        OPENED.pop().close()


class End:
    """A raw packet QP of a device, with memory, its frames in order."""

    def __init__(self, device: int = 0, cq: Callable[[Context], Any] | None = None, access: int = 1) -> None:
        self.ctx = Context(name=get_device_list()[device].name.decode())
        OPENED.append(self.ctx)
        self.pd = PD(self.ctx)
        self.cq = cq(self.ctx) if cq else CQ(self.ctx, 64)
        self.mr = MR(self.pd, 1 << 16, access)
        self.posted = 0
        self.flows: list[Flow] = []
        self.kept: list[Any] = []

    def open(self, **changes: Any) -> QP:
        """RTS."""
        cap = QPCap(max_send_wr=32, max_recv_wr=32, max_inline_data=64)
        if not changes:
            init: Any = QPInitAttr(qp_type=e.IBV_QPT_RAW_PACKET, scq=self.cq, rcq=self.cq, cap=cap)
            self.qp: QP = QP(self.pd, init, QPAttr())
            return self.qp
        init = QPInitAttrEx(
            qp_type=e.IBV_QPT_RAW_PACKET, scq=self.cq, rcq=self.cq, cap=cap, pd=self.pd, sq_sig_all=1, **changes
        )
        self.qp = QPEx(self.ctx, init, QPAttr())
        return self.qp

    def flow(self, *specs: Any, **attributes: int) -> Flow:
        attr = FlowAttr(num_of_specs=len(specs), **attributes)
        attr.specs.extend(specs)
        self.flows.append(Flow(self.qp, attr))  # nobody else holds it
        return self.flows[-1]

    def post(self, queue: Any = None, length: int = 4096) -> None:
        """A receive of a page."""
        at = self.mr.buf + 4096 * (self.posted % 15)
        (queue or self.qp).post_recv(RecvWR(self.posted, 1, [SGE(at, length, self.mr.lkey)]))
        self.posted += 1

    def send(self, frame: bytes, flags: int = 2) -> None:
        self.mr.write(frame, len(frame), 15 * 4096)
        sge = SGE(self.mr.buf + 15 * 4096, len(frame), self.mr.lkey)
        self.qp.post_send(SendWR(1, num_sge=1, sg=[sge], send_flags=flags))
        assert [wc.status for wc in poll(self.cq)] == [0]

    def got(self, cq: Any = None) -> bytes:
        """The next frame."""
        (wc,) = poll(cq or self.cq)
        assert (wc.status, wc.opcode) == (0, e.IBV_WC_RECV)
        return self.mr.read(wc.byte_len, 4096 * (wc.wr_id % 15))


def poll(cq: Any, count: int = 1) -> list[Any]:
    done: list[Any] = []
    for _ in range(50):
        done += cq.poll(count - len(done))[1]
        if len(done) == count:
            break
    return done


def errno_of(call: Callable[[], Any]) -> int:
    with pytest.raises(PyverbsRDMAError) as caught:
        call()
    return caught.value.error_code


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A lab of this YAML text; the process is root."""
    from nicemu.uverbs import session

    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def build(text: str) -> None:
        file = tmp_path / "lab.yaml"
        file.write_text(text)
        close_all()
        session.reset()
        session.configure(load_config(file))

    build("nics: 1\n")
    yield build
    close_all()
    session.reset()


def pair() -> tuple[End, End]:
    client, server = End(), End()
    client.open()
    server.open()
    return client, server


def test_a_flow_brings_frames_and_without_it_none_come(lab: Any) -> None:
    client, server = pair()
    flow = server.flow(EthSpec(dst_mac=DST, ether_type=0x800), Ipv4ExtSpec(src_ip="1.1.1.1"),
                       TcpUdpSpec(e.IBV_FLOW_SPEC_UDP, dst_port=5678))  # fmt: skip
    server.post()
    client.send(FRAME)
    assert server.got() == FRAME
    server.post()
    flow.close()
    flow.close()
    client.send(FRAME)
    assert poll(server.cq) == []


def test_closing_a_qp_closes_its_flows_first(lab: Any) -> None:
    _, server = pair()
    flow = server.flow()
    server.qp.close()
    assert flow._handle is None
    server.ctx.close()


def test_one_without_cap_net_raw_may_not(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, server = pair()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert errno_of(server.flow) == errno.EPERM
    assert errno_of(lambda: End().open()) == errno.EPERM


def test_flows_that_cannot_be(lab: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, server = pair()
    assert errno_of(lambda: server.flow(EthSpec(is_inner=1))) == errno.EOPNOTSUPP
    assert errno_of(lambda: server.flow(flags=e.IBV_FLOW_ATTR_FLAGS_EGRESS)) == errno.EOPNOTSUPP
    assert errno_of(lambda: server.flow(port=2)) == errno.EINVAL
    assert errno_of(lambda: Flow(server.qp, FlowAttr(num_of_specs=1))) == errno.EINVAL
    assert "appended specs (0)" in caplog.text


def test_a_warm_page_or_a_cold_one_is_all_the_same(lab: Any) -> None:
    """On-demand memory on both sides: with a backup ring frames wait for their page."""
    lab("firmware: backup_ring\n")
    access = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_ON_DEMAND
    client, server = End(access=access), End(access=access)
    client.open()
    server.open()
    server.flow(EthSpec(dst_mac=DST))
    for _ in range(3):
        server.post()
    for number in range(3):
        client.send(FRAME + bytes([number]))
    assert [server.got() for _ in range(3)] == [FRAME + bytes([number]) for number in range(3)]


def test_creation_flags_vlan_and_fcs(lab: Any) -> None:
    wanted = e.IBV_WC_STANDARD_FLAGS | e.IBV_WC_EX_WITH_CVLAN
    client, server = End(), End(cq=lambda ctx: CQEX(ctx, CqInitAttrEx(wc_flags=wanted)))
    client.open()
    flags = e.IBV_QP_CREATE_CVLAN_STRIPPING | e.IBV_QP_CREATE_SCATTER_FCS | e.IBV_QP_CREATE_PCI_WRITE_END_PADDING
    server.open(comp_mask=MASK.IBV_QP_INIT_ATTR_PD | MASK.IBV_QP_INIT_ATTR_CREATE_FLAGS, create_flags=flags)
    server.flow(EthSpec(dst_mac=DST, vlan_tag=0x0C0C, vlan_tag_mask=0x0FFF))
    server.post()
    client.send(ethernet(bytes(60), tags=((0x8100, 0xBC0C),)))
    assert server.cq.start_poll() == 0
    assert (server.cq.read_cvlan(), server.cq.read_byte_len()) == (0xBC0C, 60 + 14 + 4)
    server.cq.end_poll()
    mask = MASK.IBV_QP_INIT_ATTR_PD | MASK.IBV_QP_INIT_ATTR_CREATE_FLAGS
    assert errno_of(lambda: server.open(comp_mask=mask, create_flags=2)) == errno.EOPNOTSUPP
    assert errno_of(lambda: server.open(comp_mask=mask, create_flags=1)) == errno.EINVAL


def test_tso_from_the_program(lab: Any) -> None:
    client, server = End(), End()
    mask = MASK.IBV_QP_INIT_ATTR_PD | MASK.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS | MASK.IBV_QP_INIT_ATTR_MAX_TSO_HEADER
    operations = e.IBV_QP_EX_WITH_SEND | e.IBV_QP_EX_WITH_TSO
    qp = client.open(comp_mask=mask, send_ops_flags=operations, max_tso_header=54)
    assert isinstance(qp, QPEx)
    server.open()
    server.flow(EthSpec(dst_mac=DST))
    headers = ethernet(ipv4(tcp(b""), 6), 0x0800)
    client.mr.write(headers + b"d" * 2500, len(headers) + 2500)
    for _ in range(3):
        server.post()

    def segment(size: int) -> None:
        qp.wr_start()
        qp.wr_id, qp.wr_flags = 9, e.IBV_SEND_SIGNALED
        qp.wr_send_tso(client.mr.buf, size, 1000)
        qp.wr_set_sge(SGE(client.mr.buf + len(headers), 2500, client.mr.lkey))
        qp.wr_complete()

    segment(len(headers))
    (wc,) = poll(client.cq)
    assert (wc.status, wc.opcode, wc.wr_id) == (0, e.IBV_WC_TSO, 9)
    frames = [server.got() for _ in range(3)]
    assert [len(frame) for frame in frames] == [1054, 1054, 554]
    assert [struct.unpack_from(">I", frame, 38)[0] for frame in frames] == [1, 1001, 2001]
    assert errno_of(lambda: segment(55)) == errno.EINVAL
    assert errno_of(lambda: segment(0)) == errno.EINVAL


def test_a_rate_is_asked_for_like_a_state(lab: Any) -> None:
    _, server = pair()
    attr = QPAttr(qp_state=e.IBV_QPS_RTS)
    attr.rate_limit = 1000
    server.qp.modify(attr, e.IBV_QP_RATE_LIMIT)
    assert server.qp.query(0)[0].rate_limit == 1000
    attr.rate_limit = 4_000_000_000
    assert errno_of(lambda: server.qp.modify(attr, e.IBV_QP_RATE_LIMIT)) == errno.EINVAL


def rss(server: End, log_size: int = 2, fields: int = 3) -> tuple[list[WQ], RwqIndTable, QPEx]:
    init = WQInitAttr(wq_pd=server.pd, wq_cq=server.cq, max_wr=16)
    wqs = [WQ(server.ctx, init) for _ in range(1 << log_size)]
    for wq in wqs:
        wq.modify(WQAttr(attr_mask=1, wq_state=e.IBV_WQS_RDY))
    server.kept += wqs
    table = RwqIndTable(server.ctx, RwqIndTableInitAttr(log_size, wqs))
    server.kept.append(table)
    conf = RxHashConf(e.IBV_RX_HASH_FUNC_TOEPLITZ, 40, list(range(40)), fields)
    mask = MASK.IBV_QP_INIT_ATTR_PD | MASK.IBV_QP_INIT_ATTR_RX_HASH | MASK.IBV_QP_INIT_ATTR_IND_TABLE
    attr = QPInitAttrEx(
        qp_type=e.IBV_QPT_RAW_PACKET, comp_mask=mask, pd=server.pd, hash_conf=conf, ind_table=table
    )  # fmt: skip
    server.qp = QPEx(server.ctx, attr)
    return wqs, table, server.qp


def test_rss_spreads_and_closes_in_order(lab: Any) -> None:
    client, server = End(), End()
    client.open()
    wqs, table, qp = rss(server)
    flow = server.flow()
    for _ in range(4):
        for wq in wqs:
            server.post(wq)
    for host in range(8):
        client.send(ethernet(ipv4(udp(), src=f"10.0.0.{host}"), 0x0800))
    done = poll(server.cq, 8)
    assert {wc.status for wc in done} == {0} and len({wc.qp_num for wc in done}) > 1
    assert {wc.qp_num for wc in done} <= {wq.wqn for wq in wqs} and table.wqs == wqs
    assert qp.ind_table is table
    assert errno_of(lambda: qp.query(0)) == errno.EOPNOTSUPP
    with pytest.raises(PyverbsUserError):
        qp.wr_start()
    wqs[0].close()
    assert flow._handle is qp._handle is table._handle is None
    server.ctx.close()


def test_rss_qps_that_cannot_be(lab: Any) -> None:
    server = End()
    assert errno_of(lambda: rss(server, fields=1 | 4)) == errno.EINVAL
    wq = WQ(server.ctx, WQInitAttr(wq_pd=server.pd, wq_cq=server.cq))
    assert errno_of(lambda: RwqIndTable(server.ctx, RwqIndTableInitAttr(1, [wq]))) == errno.EINVAL
    assert errno_of(lambda: WQ(server.ctx, WQInitAttr(wq_cq=server.cq))) == errno.EINVAL
    assert errno_of(lambda: wq.modify(WQAttr(attr_mask=1, wq_state=7))) == errno.EINVAL
    for _ in range(100):
        server.post(wq)
    assert errno_of(lambda: server.post(wq)) == errno.ENOMEM


def test_a_work_queue_that_goes_to_err_flushes(lab: Any) -> None:
    server = End()
    wqs, *_ = rss(server)
    server.post(wqs[1])
    wqs[1].modify(WQAttr(attr_mask=1, wq_state=e.IBV_WQS_ERR))
    (wc,) = poll(server.cq)
    assert (wc.status, wc.qp_num) == (e.IBV_WC_WR_FLUSH_ERR, wqs[1].wqn)
    wqs[1].modify(WQAttr(attr_mask=1, wq_state=e.IBV_WQS_RESET))
    wqs[1].modify(WQAttr(attr_mask=1, wq_state=e.IBV_WQS_RDY))


def test_capabilities(lab: Any) -> None:
    with Context(name="nicemu0") as ctx:
        attr = ctx.query_device_ex()
    assert attr.raw_packet_caps == 7 and attr.max_wq_type_rq > 0
    assert attr.orig_attr.device_cap_flags & e.IBV_DEVICE_MANAGED_FLOW_STEERING
    assert attr.device_cap_flags_ex >> 34 & 1 and attr.device_cap_flags_ex >> 36 & 1
    assert (attr.tso_caps.max_tso, attr.tso_caps.supported_qpts) == (1 << 18, 1 << 8)
    assert (attr.rss_caps.rx_hash_function, attr.rss_caps.rx_hash_fields_mask) == (1, 0xFF)
    assert attr.rss_caps.max_rwq_indirection_table_size == 256
    assert attr.packet_pacing_caps.qp_rate_limit_max == 100_000_000


def test_a_device_without_raw_packets_says_so(lab: Any) -> None:
    lab("nic: {raw_packet: null}\n")
    end = End()
    attr = end.ctx.query_device_ex()
    assert (attr.raw_packet_caps, attr.max_wq_type_rq, attr.tso_caps.max_tso, attr.rss_caps.supported_qpts) == (0,) * 4
    assert errno_of(end.open) == errno.EOPNOTSUPP
    assert errno_of(lambda: WQ(end.ctx, WQInitAttr(wq_pd=end.pd, wq_cq=end.cq))) == errno.EOPNOTSUPP


SWITCH = "nics: 3\nseed: 4\nfabric: {{switch: {{latency_ns: 300}}}}\npcap: {}\n"
MESH = "nics: 3\npcap: {}\n"


@pytest.mark.parametrize("text", [SWITCH, MESH])
def test_three_nics(lab: Any, text: str, tmp_path: Path) -> None:
    from nicemu.uverbs import session

    file = tmp_path / "raw.pcapng"
    lab(text.format(file))
    ends = [End(device) for device in range(3)]
    for end in ends:
        end.open()
        end.flow()
        for _ in range(3):
            end.post()
    own = [device.mac for device in session.current().devices]
    to_one = ethernet(b"to the third" * 5, dst=own[2])
    to_all = ethernet(b"to all" * 10, dst=0xFFFFFFFFFFFF)
    to_nobody = ethernet(b"flooded" * 8, dst=0x0200DEADBEEF)
    for frame in (to_one, to_all, to_nobody):
        ends[0].send(frame)
    assert [ends[2].got() for _ in range(3)] == [to_one, to_all, to_nobody]
    assert [ends[1].got() for _ in range(2)] == [to_all, to_nobody]
    assert [ends[0].got() for _ in range(3)] == [to_one, to_all, to_nobody]  # its own rule wants them
    assert poll(ends[1].cq) == []
    session.current().flush()
    sent = [data for *_, data, _ in packets(file.read_bytes())]
    assert {to_one, to_all, to_nobody} == set(sent)
    assert int(session.current().world.link[1].packets) == 3, "what is looped back does not take the wire"


def test_impairments_hit_raw_frames_too(lab: Any) -> None:
    lab("nics: 2\nimpairments:\n- {kind: corrupt, transport: RAW, packets: [2]}\n- {kind: loss, transport: RC}\n")
    from nicemu.uverbs import session

    sender, receiver = End(0), End(1)
    sender.open()
    receiver.open()
    receiver.flow()
    for number in range(3):
        receiver.post()
        sender.send(FRAME + bytes([number]))
    assert [receiver.got() for _ in range(2)] == [FRAME + b"\0", FRAME + b"\2"]
    assert session.current().devices[1].counters()["icrc_errors"] == 1
    assert "raw frame" in session.current().fabric.describe(1)
