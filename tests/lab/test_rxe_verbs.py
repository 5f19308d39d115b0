"""What soft-RoCE's driver and library grant and refuse, side by side with the default device."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nicemu.cli.devinfo import device_lines
from nicemu.config import ConfigError, load_config
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.cq import CQ, CQEX, CqInitAttrEx
from nicemu.pyverbs.device import DM, AllocDmAttr, Context, get_device_list
from nicemu.pyverbs.mr import MR
from nicemu.pyverbs.pd import PD, ParentDomain, ParentDomainInitAttr
from nicemu.pyverbs.pyverbs_error import PyverbsUserError
from nicemu.pyverbs.qp import QP, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.pyverbs.wq import WQ, WQInitAttr
from nicemu.pyverbs.wr import SGE
from nicemu.pyverbs.xrcd import XRCD, XRCDInitAttr
from nicemu.uverbs import session
from tests.lab.worlds import ACCESS, LOCAL, ON_DEMAND, Ends, errno_of, in_both, in_world

REFERENCE = Path(__file__).parent.parent / "data/ibv_devinfo_rxe.txt"
"""What ``ibv_devinfo -v`` of rdma-core 56.1 printed in a guest with Linux 7.3.4, whose eth0 has the MAC address
52:54:00:00:00:02, the address 10.0.0.2 and an MTU of 1500."""


def test_the_device_reports_what_rxe_reports() -> None:
    """Every field is equal: names, GUID and addresses are the guest's."""

    def scenario(ends: Ends) -> str:
        (device,) = get_device_list()
        return "\n".join(device_lines(device, ends.ctx, verbose=True)) + "\n"

    assert in_world("rxe", scenario) == REFERENCE.read_text()


def test_an_mtu_of_9000_makes_packets_of_4096_bytes() -> None:
    def scenario(ends: Ends) -> list[int]:
        port = ends.ctx.query_port(1)
        return [port.active_mtu, port.max_mtu]

    assert (in_world("rxe", scenario), in_world("rxe_9000", scenario)) == ([3, 5], [5, 5])


REFUSED: dict[str, Callable[[Ends], object]] = {
    "advise_mr": lambda ends: ends.pd.advise_mr(0, 1, [SGE(ends.source.buf, 4096, ends.source.lkey)]),
    "rereg_mr": lambda ends: ends.source.rereg(e.IBV_REREG_MR_CHANGE_ACCESS, None, 0, 0, LOCAL),
    "zero-based MR": lambda ends: MR(ends.pd, 4096, ACCESS | e.IBV_ACCESS_ZERO_BASED),
    "parent domain": lambda ends: ParentDomain(ends.ctx, ParentDomainInitAttr(ends.pd)),
    "XRC domain": lambda ends: XRCD(ends.ctx, XRCDInitAttr(
        e.IBV_XRCD_INIT_ATTR_FD | e.IBV_XRCD_INIT_ATTR_OFLAGS, os.O_CREAT, -1)),
    "XRC QP": lambda ends: QP(ends.pd, QPInitAttr(qp_type=e.IBV_QPT_XRC_SEND, scq=ends.near, cap=QPCap())),
    "work queue": lambda ends: WQ(ends.ctx, WQInitAttr(wq_pd=ends.pd, wq_cq=ends.near)),
    "timestamps": lambda ends: CQEX(ends.ctx, CqInitAttrEx(wc_flags=e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)),
    "ignored overrun": lambda ends: CQEX(ends.ctx, CqInitAttrEx(
        comp_mask=e.IBV_CQ_INIT_ATTR_MASK_FLAGS, flags=e.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN)),
    "clock": lambda ends: ends.ctx.query_rt_values_ex(),
    "import of a context": lambda ends: Context(cmd_fd=os.dup(ends.ctx.cmd_fd)),
    "import of a PD": lambda ends: PD(ends.ctx, handle=ends.pd.handle),
    "import of an MR": lambda ends: MR(ends.pd, handle=ends.source.handle),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_rxe_does_not_have(what: str) -> None:
    default, rxe = in_both(lambda ends: errno_of(REFUSED[what], ends))
    assert (default != "EOPNOTSUPP", rxe) == (True, "EOPNOTSUPP")


def test_device_memory() -> None:
    with pytest.raises(PyverbsUserError, match="doesn't support"):
        in_world("rxe", lambda ends: DM(ends.ctx, AllocDmAttr(4096)))


def test_memory_that_is_not_persistent() -> None:
    assert in_both(lambda ends: errno_of(MR, ends.pd, 4096, LOCAL | e.IBV_ACCESS_FLUSH_PERSISTENT)) == ("ok", "EINVAL")


def test_huge_pages_are_not_on_demand() -> None:
    answers = in_both(lambda ends: errno_of(MR, ends.pd, mmap.PAGESIZE, LOCAL | ON_DEMAND | e.IBV_ACCESS_HUGETLB))
    assert answers == ("EOPNOTSUPP", "EOPNOTSUPP")


@pytest.mark.parametrize(("asked", "granted"), [
    ((1, 1, 1, 1, 0), (1, 1, 1, 1, 16)), ((16, 10, 2, 3, 0), (31, 15, 2, 3, 32)),
    ((100, 7, 1, 1, 100), (127, 7, 6, 1, 100)), ((5, 5, 3, 1, 16), (7, 7, 3, 1, 48)),
    ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0)), ((1, 1, 1, 1, 496), (1, 1, 31, 1, 496)),
])  # fmt: skip
def test_what_a_qp_is_granted(asked: tuple[int, ...], granted: tuple[int, ...]) -> None:
    """Depths of a power of two less one; SGEs and inline data have the same room."""
    names = ("max_send_wr", "max_recv_wr", "max_send_sge", "max_recv_sge", "max_inline_data")

    def scenario(ends: Ends) -> object:
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=ends.near, rcq=ends.near, cap=QPCap(*asked))
        queried = QP(ends.pd, init).query(e.IBV_QP_CAP)[0].cap
        return tuple(tuple(getattr(cap, name) for name in names) for cap in (queried, init.cap))

    wanted = tuple(min(value, 256) if at == 4 else value for at, value in enumerate(asked))
    if asked != wanted:  # more inline data than the default device has
        assert in_world("rxe", scenario) == (granted, granted)
        return
    assert in_both(scenario) == ((asked, asked), (granted, granted))


def test_most_inline_data() -> None:
    def scenario(ends: Ends) -> list[str]:
        caps = (QPCap(max_send_wr=1, max_recv_wr=1, max_inline_data=size) for size in (512, 513))
        inits = (QPInitAttr(qp_type=e.IBV_QPT_RC, scq=ends.near, rcq=ends.near, cap=cap) for cap in caps)
        return [errno_of(QP, ends.pd, init) for init in inits]

    assert in_world("rxe", scenario) == ["ok", "EINVAL"]


@pytest.mark.parametrize(("asked", "granted"), [
    ((1, 1), (1, 1)), ((10, 2), (15, 2)), ((16, 4), (31, 4)), ((64, 0), (127, 1)),
])  # fmt: skip
def test_what_an_srq_is_granted(asked: tuple[int, int], granted: tuple[int, int]) -> None:
    def scenario(ends: Ends) -> object:
        found = SRQ(ends.pd, SrqInitAttr(SrqAttr(*asked))).query()
        return found.max_wr, found.max_sge

    assert in_both(scenario) == (asked, granted)


def test_a_resized_srq() -> None:
    def scenario(ends: Ends) -> list[int]:
        srq, sizes = SRQ(ends.pd, SrqInitAttr(SrqAttr(10, 1))), []
        for size in (20, 5, 100):
            srq.modify(SrqAttr(size), e.IBV_SRQ_MAX_WR)
            sizes.append(srq.query().max_wr)
        return sizes

    assert in_both(scenario) == ([20, 5, 100], [31, 7, 127])


def test_a_cq_holds_what_it_reports() -> None:
    """The default device has one entry more than it says."""

    def scenario(ends: Ends) -> object:
        small = CQ(ends.ctx, 3)
        a, _b = ends.pair(near=small)
        for wr_id in range(6):
            ends.post(a, e.IBV_WR_RDMA_WRITE, ends.out(), wr_id)
        ends.statuses(ends.far)
        return small.cqe, len(small.poll(9)[1])

    assert in_both(scenario) == ((3, 4), (3, 3))


@pytest.mark.parametrize(("changes", "default", "rxe"), [
    ({"max_rd_atomic": 3, "max_dest_rd_atomic": 5}, (3, 5), (4, 8)),
    ({"max_rd_atomic": 128, "max_dest_rd_atomic": 128}, "EINVAL", (128, 128)),
    ({"path_mtu": 5}, (4, 4), (4, 4)),
])  # fmt: skip
def test_attributes_of_a_qp(changes: dict[str, int], default: object, rxe: object) -> None:
    def scenario(ends: Ends) -> object:
        a, b = ends.qps()
        said = errno_of(a.to_rts, ends.attributes(b, **changes))
        found = a.query(0)[0]
        return (found.max_rd_atomic, found.max_dest_rd_atomic) if said == "ok" else said

    assert in_both(scenario) == (default, rxe)


def test_128_reads_outstanding() -> None:
    def scenario(ends: Ends) -> int:
        queue = CQ(ends.ctx, 255)
        init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=queue, rcq=queue, cap=QPCap(max_send_wr=255, max_recv_wr=1))
        a, b = QP(ends.pd, init), QP(ends.pd, init)
        for qp, peer in ((a, b), (b, a)):
            qp.to_rts(ends.attributes(peer, max_rd_atomic=128, max_dest_rd_atomic=128))
        for wr_id in range(200):
            ends.post(a, e.IBV_WR_RDMA_READ, ends.out(8), wr_id)
        return len([status for _, status in ends.statuses(queue) if status == "SUCCESS"])

    assert in_world("rxe", scenario) == 200


@pytest.mark.parametrize(("packets", "asked"), [(66, 1), (132, 2), (200, 4)])
def test_how_often_a_long_message_asks_for_an_ack(packets: int, asked: int) -> None:
    """rxe: each 66th packet and the last; each is acknowledged by itself."""

    def scenario(ends: Ends) -> int:
        region = MR(ends.pd, packets * 1024, ACCESS)
        a, _b = ends.pair(timeout=20)
        sent = int(ends.nic.packets_sent)
        ends.post(a, e.IBV_WR_RDMA_WRITE, SGE(region.buf, packets * 1024, region.lkey), rkey=region.rkey,
                  at=region.buf - ends.target.buf)  # fmt: skip
        assert ends.statuses(ends.near) == [(1, "SUCCESS")]
        return int(ends.nic.packets_sent) - sent - packets

    assert in_world("rxe", scenario) == asked


def test_timers_tick_in_jiffies() -> None:
    """An RNR wait of 0.01 ms takes 4 ms."""

    def scenario(ends: Ends) -> int:
        a, _b = ends.pair(timeout=20)
        before = int(session.current().world.now)
        ends.send(a)
        while not ends.near.poll(1)[0]:
            pass
        return int(session.current().world.now) - before

    default, rxe = in_both(scenario)
    assert default < 100_000 < 4_000_000 < rxe < 4_100_000


def test_a_profile_like_another(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("nic:\n  like: rxe\n  link:\n    rate_gbps: 25\n")
    nic, rxe = load_config(path).nic, load_config("rxe").nic
    assert (nic.link.rate_gbps, nic.link.delay_ns, nic.max_qp) == (25, rxe.link.delay_ns, rxe.max_qp)
    path.write_text("nic:\n  like: connectx\n")
    with pytest.raises(ConfigError, match="expected a profile"):
        load_config(path)


def test_values_that_do_not_fit_their_fields() -> None:
    changes = ({"retry_cnt": 8}, {"rnr_retry": 8}, {"min_rnr_timer": 32}, {"path_mtu": 0}, {"max_dest_rd_atomic": 255},
               {"timeout": 32})  # fmt: skip

    def scenario(ends: Ends) -> list[str]:
        _a, b = ends.qps()
        return [errno_of(ends.qps()[0].to_rts, ends.attributes(b, **change)) for change in changes]

    assert in_both(scenario) == (["EINVAL"] * 6, ["ok"] * 5 + ["EINVAL"])


def test_the_limit_of_a_new_srq() -> None:
    answers = in_both(lambda ends: SRQ(ends.pd, SrqInitAttr(SrqAttr(15, 1, 2))).query().srq_limit)
    assert answers == (0, 2)
