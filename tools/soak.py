#!/usr/bin/env python3
"""The soak: messages of all sizes and opcodes over a lossy fabric, while the host takes the memory away.

  tools/soak.py --messages 20000                 a short one (a minute)
  tools/soak.py                                  a million messages at 1 % loss (about a quarter of an hour)
  tools/soak.py --kinds migrate --per-ms 50      one kind of invalidation, more often
  tools/soak.py --mutant skip_device_wait        a driver that does not wait for its device: the sanitizer must report

Two NICs, fourteen flows: RC (with and without SRQ, on arena, memfd and pinned memory), UC and UD. Every completion and
every byte, also around the messages, is compared with a model. Exit status 0: nothing wrong, lost or duplicate, and no
sanitizer report; 1: a line that says what, and how to have it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
from collections import Counter

import numpy as np
from soak_memory import KINDS, PAGE, Area, Invalidator, Wrong
from soak_traffic import SRQ_BYTES, WINDOW, Flow, Reliable, Shared
from soak_unreliable import Unreliable

from nicemu import lab as labs
from nicemu.config import Config
from nicemu.config.fabric_profile import Impairment
from nicemu.lab.violations import print_violations
from nicemu.pyverbs import enums as e
from nicemu.pyverbs.addr import AH, AHAttr, GlobalRoute
from nicemu.pyverbs.cq import CQ
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.pd import PD
from nicemu.pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from nicemu.pyverbs.srq import SRQ, SrqAttr, SrqInitAttr
from nicemu.uverbs import session

REMOTE = (e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
          | e.IBV_ACCESS_REMOTE_ATOMIC | e.IBV_ACCESS_FLUSH_GLOBAL | e.IBV_ACCESS_FLUSH_PERSISTENT)  # fmt: skip
QKEY = 0x1234
AREA = 256 * 1024
PAIRS = (("RC arena", "arena", False), ("RC memfd", "memfd", False), ("RC SRQ arena", "arena", True),
         ("RC pinned", "pinned", False), ("RC SRQ memfd", "memfd", True))  # fmt: skip
"""Name, memory of target, inbox and results, and whether receives come from the NIC's SRQ; a flow in each direction."""
PATIENCE_NS = 60_000_000_000
"""Virtual time without a completion after which a round hangs."""


class Side:
    """One NIC's context and what is shared there."""

    def __init__(self, soak: Soak, index: int) -> None:
        self.ctx = Context(name=f"nicemu{index}")
        self.pd, self.cq = PD(self.ctx), CQ(self.ctx, 4096)
        self.soak, self.index = soak, index
        self.source = soak.area(self, "source", 0, "arena", 1 << 20)
        area = soak.area(self, "SRQ buffers", e.IBV_ACCESS_LOCAL_WRITE, "arena", 32 * SRQ_BYTES)
        self.shared = Shared(SRQ(self.pd, SrqInitAttr(SrqAttr(max_wr=64))), area)
        self.route = GlobalRoute(dgid=self.ctx.query_gid(1, 1), sgid_index=1)

    def qp(self, kind: int, shared: bool = False) -> QP:
        """A new QP."""
        cap = QPCap(max_send_wr=WINDOW + 16, max_recv_wr=WINDOW + 16, max_send_sge=4, max_recv_sge=2,
                    max_inline_data=256)  # fmt: skip
        srq = self.shared.srq if shared else None
        return QP(self.pd, QPInitAttr(qp_type=kind, scq=self.cq, rcq=self.cq, srq=srq, cap=cap, sq_sig_all=0))

    def attr(self, peer: QP, there: Side, psns: tuple[int, int]) -> QPAttr:
        """What takes a QP to RTS, towards ``peer``."""
        attr = QPAttr(path_mtu=e.IBV_MTU_4096)
        attr.qp_access_flags, attr.dest_qp_num, attr.qkey = REMOTE, peer.qp_num, QKEY
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 8
        attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 9, 7, 7, 5
        attr.sq_psn, attr.rq_psn = psns
        attr.ah_attr = AHAttr(is_global=1, gr=there.route)
        return attr


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.draw = options, random.Random(f"traffic {options.seed}")
        loss = (Impairment(kind="loss", probability=options.loss),) if options.loss else ()
        config = Config(nics=2, seed=options.seed, impairments=loss, discipline=options.discipline,
                        mutants=tuple(options.mutant))  # fmt: skip
        self.lab = labs.open(config)
        session.install(self.lab.endpoint, self.lab)
        self.process = self.lab.endpoint.process
        self.areas: list[Area] = []
        self.flows: list[Flow] = []
        self.senders: dict[tuple[int, int], Flow] = {}
        self.receivers: dict[tuple[int, int], Flow] = {}
        self.sides = [Side(self, index) for index in range(2)]
        self._fill_sources()
        for name, memory, shared in PAIRS:
            self._reliable(name, memory, shared)
        self._unreliable("UC", e.IBV_QPT_UC)
        self._unreliable("UD", e.IBV_QPT_UD)
        kinds = tuple(options.kinds.split(","))
        self.invalidator = Invalidator(self.lab, self.areas, options.per_ms, options.seed, kinds)
        self.lab.scheduler.spawn(self.invalidator.run(), "invalidations", daemon=True)
        self.messages = self.rounds = self.discards = self.rewrites = 0

    # Composition ------------------------------------------------------------------------------------------------------

    def area(self, side: Side, name: str, access: int, memory: str, length: int = AREA) -> Area:
        """A new area at a NIC."""
        area = Area(self.process, side.pd, f"{name} at NIC {side.index}", length, access, memory)
        self.areas.append(area)
        return area

    def _fill_sources(self) -> None:
        noise = np.random.default_rng(self.options.seed)
        for side in self.sides:
            side.source.store(0, noise.integers(0, 256, side.source.length, np.uint8))

    def _connect(self, kind: int, shared: bool) -> list[QP]:
        qps = [side.qp(kind, shared) for side in self.sides]
        psns = [self.draw.randrange(1 << 24) for _ in range(2)]
        psns[0] = 2**24 - 1 - psns[0] % 2000  # PSNs wrap soon
        for here, there in ((0, 1), (1, 0)):
            attr = self.sides[here].attr(qps[there], self.sides[there], (psns[here], psns[there]))
            qps[here].to_rts(attr)
        return qps

    def _areas(self, name: str, here: int, memory: str) -> dict[str, Area]:
        there, local = self.sides[1 - here], self.sides[here]
        return {
            "source": local.source,
            "target": self.area(there, f"{name} target", REMOTE, memory),
            "inbox": self.area(there, f"{name} inbox", e.IBV_ACCESS_LOCAL_WRITE, memory, 4 * AREA),
            "results": self.area(local, f"{name} results", e.IBV_ACCESS_LOCAL_WRITE, memory, 4 * AREA),
        }

    def _add(self, flow: Flow, here: int) -> None:
        self.flows.append(flow)
        self.senders[here, flow.qp.qp_num] = self.receivers[1 - here, flow.peer.qp_num] = flow

    def _reliable(self, name: str, memory: str, shared: bool) -> None:
        qps = self._connect(e.IBV_QPT_RC, shared)
        for here in range(2):
            flow_name = f"{name} from NIC {here}"
            buffers = self.sides[1 - here].shared if shared else None
            areas = self._areas(flow_name, here, memory)
            self._add(Reliable(flow_name, (qps[here], qps[1 - here]), areas, self.draw, buffers), here)

    def _unreliable(self, name: str, kind: int) -> None:
        qps = self._connect(kind, False)
        for here in range(2):
            side, flow_name = self.sides[here], f"{name} from NIC {here}"
            areas = self._areas(flow_name, here, "arena")
            address = None
            if kind == e.IBV_QPT_UD:
                ah = AH(side.pd, attr=AHAttr(is_global=1, gr=self.sides[1 - here].route))
                address = ah, qps[1 - here].qp_num, QKEY
            self._add(Unreliable(flow_name, (qps[here], qps[1 - here]), areas, self.draw, address), here)

    # A round ----------------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """Every flow posts a batch; all complete; every byte is compared; then what needs an idle device."""
        self.rounds += 1
        for side in self.sides:
            side.shared.refill()
        for flow in self.draw.sample(self.flows, len(self.flows)):
            self.messages += flow.batch()
        self._drain()
        self._settle()
        for flow in self.flows:
            if isinstance(flow, Unreliable):
                flow.settle()
        for area in self.areas:
            area.check()
        if self.lab.violations and not self.options.mutant:
            raise Wrong(f"{self.lab.violations} sanitizer reports")
        if not self.lab.pending:
            self._between()

    def _drain(self) -> None:
        clock = self.lab.scheduler.clock
        progress = clock()
        while not all(flow.done for flow in self.flows):
            if sum(self._poll(side) for side in self.sides):
                progress = clock()
            elif not self.lab.pending or clock() - progress > PATIENCE_NS:
                self._lost()

    def _lost(self) -> None:
        """:raises Wrong: always."""
        waits = [f"{flow.name}: {len(flow.sent)} requests, the first {flow.sent[0] if flow.sent else None}; "
                 f"{len(getattr(flow, 'messages', ()))} messages" for flow in self.flows if not flow.done]  # fmt: skip
        state = "goes on without completions" if self.lab.pending else "has nothing left to run"
        raise Wrong(f"lost completions; the lab {state}: " + "; ".join(waits))

    def _poll(self, side: Side) -> int:
        count, completions = side.cq.poll(64)
        for wc in completions:
            receives = wc.opcode & e.IBV_WC_RECV or wc.opcode == e.IBV_WC_RECV_RDMA_WITH_IMM
            key = side.index, wc.qp_num
            if wc.status != e.IBV_WC_SUCCESS:
                raise Wrong(f"{self.senders[key].name}: completion with status {wc.status}, wr_id {wc.wr_id}, "
                            f"vendor error {wc.vendor_err:#x}")  # fmt: skip
            if receives:
                self.receivers[key].on_received(wc)
            else:
                self.senders[key].on_sent(wc)
        if count:
            side.shared.refill()
        return count

    def _settle(self) -> None:
        """Until nothing is under way; completions that come now belong to messages that may be lost, or to nobody."""
        for _ in range(100):
            quiet = not self.lab.endpoint.settle(lambda: False, 1_000_000) and not self.lab.pending
            if sum(self._poll(side) for side in self.sides) == 0 and quiet:
                return
        # the host is busy all the time: device events are over all the same

    def _between(self) -> None:
        """No request is in flight: discard anonymous pages (zeros are expected), write as the program."""
        draw = self.draw
        area = draw.choice([area for area in self.areas if area.writable and area.kind == "arena"])
        pages = draw.randint(1, 8)
        area.discard(draw.randrange(area.length // PAGE - pages) * PAGE, pages * PAGE)
        self.discards += 1
        source = draw.choice(self.sides).source
        data = np.frombuffer(draw.randbytes(draw.randint(1, 3 * PAGE)), np.uint8)
        source.store(draw.randrange(source.length - len(data)), data)
        self.rewrites += 1

    # The end ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All messages.

        :raises Wrong: something is.
        """
        began, shown = time.monotonic(), 0
        while self.messages < self.options.messages:
            self.round()
            if self.messages * 50 // self.options.messages > shown:
                shown = self.messages * 50 // self.options.messages
                seconds = time.monotonic() - began
                print(f"{min(100, 2 * shown):3} %  {self.messages} messages, round {self.rounds}, {seconds:.0f} s, "
                      f"{self.messages / seconds:.0f} a second", flush=True)  # fmt: skip
        self._settle()

    def summary(self) -> str:
        """What happened."""
        counts: Counter[str] = Counter()
        for flow in self.flows:
            counts.update(flow.counts)
        host, driver = self.lab.host.counters, Counter[str]()
        for counters in self.lab.driver.mr_counters.values():
            driver.update(counters.items() if isinstance(counters, dict) else dict(counters.items()))
        nics = Counter[str]()
        for device in self.lab.devices:
            nics.update(device.counters())
        lines = [f"messages       {_text(counts)}", f"invalidations  {_text(self.invalidator.done)} discard "
                 f"{self.discards} rewrite {self.rewrites}", f"memory         {_text(host)}",
                 f"regions        {_text(driver)}", f"NICs           {_text(nics)}"]  # fmt: skip
        lines += [f"fabric         {line}" for line in self.lab.fabric.report()]
        lines += [f"lock report    {report}" for report in self.lab.host.reports]
        lines.append(f"virtual time   {self.lab.world.now / 1e9:.3f} s, sanitizer reports {self.lab.violations}")
        return "\n".join(lines)

    def close(self) -> None:
        """Close the contexts and the lab."""
        for side in self.sides:
            side.ctx.close()
        session.reset()


def _text(counts: Counter[str]) -> str:
    return " ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)


def soak(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    began = time.monotonic()
    print(f"seed {options.seed}, {options.messages} messages, loss {options.loss}, {options.per_ms} invalidations a "
          f"virtual ms ({options.kinds}), discipline {options.discipline}", flush=True)  # fmt: skip
    run, failure = Soak(options), ""
    began_traffic = time.monotonic()
    try:
        run.run()
    except Exception as error:
        if options.debug:
            raise
        failure = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began_traffic
    print(run.summary())
    if run.lab.violations:
        print_violations(run.lab)
    if failure or run.lab.violations:
        again = " ".join(sys.argv[1:]) or "--seed 1"
        print(f"FAILED: seed {options.seed}, round {run.rounds}, message {run.messages}: "
              f"{failure or 'sanitizer reports'}\nagain:  tools/soak.py {again}", flush=True)  # fmt: skip
        return 1
    run.close()
    print(f"passed: {run.messages} messages in {seconds:.0f} s ({run.messages / seconds:.0f} a second, set-up "
          f"{began_traffic - began:.0f} s), seed {options.seed}: no wrong byte, no lost or duplicate "
          "completion")  # fmt: skip
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Parse and run; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many (default: 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="everything is drawn from it (default: 1)")
    parser.add_argument("--loss", type=float, default=0.01, help="probability on each NIC's link (default: 0.01)")
    parser.add_argument("--per-ms", type=float, default=5, help="invalidations a virtual ms (default: 5)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--discipline", default="v6.12", help="kernel era of the notifiers (default: v6.12)")
    parser.add_argument("--mutant", action="append", default=[], help="a deliberate bug of driver or device")
    parser.add_argument("--debug", action="store_true", help="tracebacks")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    return soak(options)


if __name__ == "__main__":
    sys.exit(main())
