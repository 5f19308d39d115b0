"""Commands about raw Ethernet to driver calls; see :mod:`nicemu.uverbs.dispatch`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nicemu.driver import DriverError, flow, rss, rwq_ind_table, wq
from nicemu.driver.qp import Qp, program_send_ring, views
from nicemu.driver.raw_options import RawOptions
from nicemu.timeline.host import Steps
from nicemu.uverbs import raw_messages as r
from nicemu.uverbs.messages import QpResponse

if TYPE_CHECKING:
    from nicemu.uverbs.dispatch import Dispatcher


def require_net_raw() -> None:
    """``capable(CAP_NET_RAW)``: EPERM for anybody but root."""
    if os.geteuid() != 0:
        raise DriverError(errno.EPERM, "raw Ethernet needs CAP_NET_RAW: run as root")


def qp_response(p: Qp) -> QpResponse:
    """A QP as the program sees it."""
    send, recv, record = views(p)
    return QpResponse(p.handle, p.number, p.caps, *program_send_ring(p, send), recv, p.recv_slots, p.recv_stride,
                      record)  # fmt: skip


def create_flow(self: Dispatcher, c: r.CreateFlow) -> Steps[int]:
    require_net_raw()
    attributes = flow.FlowAttributes(c.type, c.priority, c.num_of_specs, c.port, c.flags, c.specs)
    rule = yield from flow.create(self.driver.qps.get(c.qp), attributes)
    return rule.handle


def destroy_flow(self: Dispatcher, c: r.DestroyFlow) -> Steps[None]:
    yield from flow.destroy(self.driver.flows.get(c.flow))


def create_wq(self: Dispatcher, c: r.CreateWq) -> Steps[r.WqResponse]:
    pd, cq = self.driver.pds.get(c.pd), self.driver.cqs.get(c.cq)
    q = yield from wq.create(pd, cq, c.type, (c.max_wr, c.max_sge), c.flags)
    return r.WqResponse(q.handle, q.number, q.max_wr, q.max_sge, q.slots, q.stride, q.ring.view, q.record.view)


def modify_wq(self: Dispatcher, c: r.ModifyWq) -> Steps[None]:
    yield from wq.modify(self.driver.wqs.get(c.wq), c.attr_mask, c)


def destroy_wq(self: Dispatcher, c: r.DestroyWq) -> Steps[None]:
    yield from wq.destroy(self.driver.wqs.get(c.wq))


def create_ind_table(self: Dispatcher, c: r.CreateIndTable) -> Steps[int]:
    wqs = tuple(self.driver.wqs.get(handle) for handle in c.wqs)
    table = yield from rwq_ind_table.create(self.driver.contexts.get(c.context), c.log_size, wqs)
    return table.handle


def destroy_ind_table(self: Dispatcher, c: r.DestroyIndTable) -> Steps[None]:
    yield from rwq_ind_table.destroy(self.driver.ind_tables.get(c.table))


def create_rss_qp(self: Dispatcher, c: r.CreateRssQp) -> Steps[QpResponse]:
    require_net_raw()
    pd, table = self.driver.pds.get(c.pd), self.driver.ind_tables.get(c.table)
    options = RawOptions(c.create_flags, c.max_tso_header)
    made = yield from rss.create(pd, table, rss.Hash(c.function, c.key, c.fields), options, c.caps)
    return qp_response(made)


HANDLERS: dict[type, Callable[[Dispatcher, Any], Any]] = {
    r.CreateFlow: create_flow, r.DestroyFlow: destroy_flow, r.CreateWq: create_wq, r.ModifyWq: modify_wq,
    r.DestroyWq: destroy_wq, r.CreateIndTable: create_ind_table, r.DestroyIndTable: destroy_ind_table,
    r.CreateRssQp: create_rss_qp,
}  # fmt: skip
