"""A program that survives faults: it tries again what failed, connects anew, and trusts no byte it has not checked.

Plain pyverbs: it knows nothing of nicemu and runs on any device with ODP. With the lab `faults` one fault of each
boundary happens to it, from a registration without memory to a translation that leads to the wrong page.

    nicemu run --stats --config faults examples/faults.py [TRANSFERS] [DEVICE]
"""

import sys

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context, get_device_list
from pyverbs.mem_alloc import MAP_ANONYMOUS_, MAP_PRIVATE_, madvise, mmap, read, write
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsRDMAError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, SendWR

LENGTH, PORT, GID_INDEX = 2 * 4096, 1, 1
PATIENCE = 500
"""Polls in vain after which a request is posted once more."""
MADV_PAGEOUT = 21
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE
survived: list[str] = []


def survive(what):
    """Say what went wrong."""
    survived.append(what)
    print(f"survived: {what}")


def again(what, call):
    """A verb that may fail: once more, three times at most."""
    for _ in range(3):
        try:
            return call()
        except PyverbsRDMAError as error:
            survive(f"{what}: errno {error.error_code}")
    return call()


class Side:
    """A QP and its on-demand buffer."""

    def __init__(self, context):
        self.context, self.pd = context, PD(context)
        self.cq = again("CQ", lambda: CQ(context, 64))
        self.address = mmap(length=LENGTH, flags=MAP_PRIVATE_ | MAP_ANONYMOUS_)
        self.register()
        attr = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap(max_send_wr=16), sq_sig_all=1)
        self.qp = again("QP", lambda: QP(self.pd, attr))

    def register(self):
        """The buffer, on demand."""
        access = ACCESS | e.IBV_ACCESS_ON_DEMAND
        self.mr = again("MR", lambda: MR(self.pd, LENGTH, access, address=self.address))

    def connect(self, peer):
        """From any state to RTS."""
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags, attr.dest_qp_num, attr.path_mtu = ACCESS, peer.qp.qp_num, e.IBV_MTU_1024
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.min_rnr_timer, attr.rnr_retry, attr.retry_cnt, attr.timeout = 12, 7, 7, 14
        route = GlobalRoute(dgid=self.context.query_gid(PORT, GID_INDEX), sgid_index=GID_INDEX)
        attr.ah_attr = AHAttr(port_num=PORT, is_global=1, gr=route)
        self.qp.modify(QPAttr(qp_state=e.IBV_QPS_RESET), e.IBV_QP_STATE)
        self.qp.to_rts(attr)

    def wait(self):
        """The next completion; None if it does not come."""
        for _ in range(PATIENCE):
            count, completions = self.cq.poll()
            if count:
                return completions[0]
        return None


def connect(client, server):
    """Both, and nothing of before is left in the CQ."""
    for side, peer in ((client, server), (server, client)):
        side.connect(peer)
    while client.cq.poll()[0]:
        pass


def write_once(client, server, number):
    """The client's buffer to the server's: the status, None if it never completed."""
    request = SendWR(wr_id=number, num_sge=1, sg=[SGE(client.address, LENGTH, client.mr.lkey)],
                     opcode=e.IBV_WR_RDMA_WRITE)  # fmt: skip
    request.set_wr_rdma(server.mr.rkey, server.address)
    client.qp.post_send(request)
    completion = client.wait()
    return None if completion is None else completion.status


def transfer(client, server, number):
    """As often as it takes for the bytes to be there."""
    data = bytes((number * 37 + i * 7 + (i >> 12) * 101) & 255 for i in range(LENGTH))
    write(client.address, data, LENGTH)
    if number % 2:  # the system takes the pages; the device has to ask for them
        madvise(client.address, LENGTH, MADV_PAGEOUT)
    for _ in range(8):
        status = write_once(client, server, number)
        if status is None:
            survive("a request that never completed")
        elif status != e.IBV_WC_SUCCESS:
            survive(f"status {status}")
        elif read(server.address, LENGTH) == data:
            return
        else:
            survive("wrong bytes")
            for side in (client, server):  # whatever the device believes of these pages
                side.mr.close()
                side.register()
        connect(client, server)
    raise TimeoutError(f"transfer {number}")


def main(transfers=16, device=None):
    context = Context(name=device or get_device_list()[0].name.decode())
    client, server = Side(context), Side(context)
    connect(client, server)
    for number in range(transfers):
        transfer(client, server, number)
    print(f"{transfers} transfers, {len(survived)} faults survived: all bytes right")


if __name__ == "__main__":
    main(*(int(a) if a.isdigit() else a for a in sys.argv[1:3]))
