"""Record dtypes of packets and of their DMA. Rules as in nicemu.tables.records."""

from nicemu.tables.record import record

PACKET = record(
    # every event
    "next:i32",
    "wire:i32",              # bytes of the wire's time that it was given at its port
    "grh:i16",               # bytes in front of the payload that DMA begins with (40); negative: so far behind
    "segments:i8", "verdict:i8", "last:i8",
    "multicast:i8",          # 1: for every NIC with a member of the destination GID
    "ecn:i8",                # 1: congestion experienced
    "tagging:i8",            # of the QP's message at a TM-SRQ, when the packet was accepted
    "in_backup:i8",          # 1: it has a place in the backup ring of the NIC that received it
    "counted:i8",            # READ, atomic, FLUSH: counts as outstanding (1), or is one too many (2)
    "chained:i8",            # 1: in the chain of packets that ever borrowed (``nic.lent``)
    "offload:i8",            # raw frame: 1: checksums are filled in when it departs
    "source_nic:i32", "kind:i32", "dest_nic:i32", "qp:i32",
    "lent:i32",              # frame that still has the payload (``nic.lent``), 0: the payload buffer
    "transport", "opcode",   # high three bits of the BTH opcode; low five
    "payload",
    # arrival and decision
    "psn", "dest_qpn", "source_qpn", "length", "va", "rkey", "ack_request", "entry",
    # commit
    "lent_at",               # host address in that frame
    "incarnation",           # life of the sender's QP in which it was sent
    "result",
    "wr_id", "cq:i32",       # of the receive WQE that this last packet of a message completes; its CQ
    "av:i32",                # sender's AV row: how it is addressed
    "pkey", "solicited",
    "chain:i32",             # the next in that chain
    # some packets
    "fault:i32",             # number of the injected fault that hit it, 0: none
    "corrupt",               # 0, or 1 + the bit of its bytes from the BTH on that the wire flipped
    "syndrome", "msn",
    "imm",                   # ImmDt, or the R_Key of an IETH
    "srqn",                  # XRCETH
    "compare_add", "swap",   # AtomicETH; FLUSH: placement type and selectivity level
    "qkey",                  # DETH
    "tag",                   # beside ``tagging``
    "sgid_high", "sgid_low", "dgid_high", "dgid_low", "flow_label", "traffic_class", "hop_limit",  # datagrams only
)  # fmt: skip
"""Five lines of 64 bytes. What a peer can say, or an impairment write, has 64 bits."""

SEGMENT = record(
    "entry", "page", "time",
    "frame:i32",             # 0: no page; ``entry`` is the host address of device memory, 0 for the null mkey
    "generation:u32",
    "offset:i32", "length:i32",
    "mkey:i32", "via:i32",   # the mkey that translated, and the one that was asked for (a window, an implicit region)
)  # fmt: skip
"""See ``nic.dma.segment_of``."""
