"""Row accessors: ``qp(world, i)`` is row ``i`` of the QP table, in compiled code and without JIT alike."""

from nicemu import _jit
from nicemu.tables import records
from nicemu.tables.records import Slot

_TRAP = records.CONTROL.fields["trap"][1]


def _rows(slot: Slot, trap: int | None = _TRAP):
    return _jit.row_accessor(getattr(records, slot.name), int(slot), trap)


control = _rows(Slot.CONTROL)
event = _rows(Slot.EVENT, None)  # their numbers come from the wheel, and go nowhere else
coarse = _rows(Slot.COARSE)
nic = _rows(Slot.NIC)
qp = _rows(Slot.QP)
sq_entry = _rows(Slot.SQ_ENTRY)
cq = _rows(Slot.CQ)
eq = _rows(Slot.EQ)
msix = _rows(Slot.MSIX)
message = _rows(Slot.MESSAGE)
mkey = _rows(Slot.MKEY)
iotlb = _rows(Slot.IOTLB)
fault = _rows(Slot.FAULT)
packet = _rows(Slot.PACKET)
segment = _rows(Slot.SEGMENT)
resource = _rows(Slot.RESOURCE)
vector = _rows(Slot.VECTOR)
hook = _jit.row_accessor(records.VECTOR, int(Slot.HOOK), _TRAP)
frame = _rows(Slot.FRAME)
frame_stamp = _rows(Slot.FRAME_STAMP)
violation = _rows(Slot.VIOLATION)
trace_row = _rows(Slot.TRACE)
capture_row = _rows(Slot.CAPTURE)
srq = _rows(Slot.SRQ)
tag_list = _rows(Slot.TAG_LIST)
tag = _rows(Slot.TAG)
av = _rows(Slot.AV)
mcast = _rows(Slot.MCAST)
gid = _rows(Slot.GID)
fabric = _rows(Slot.FABRIC)
link = _rows(Slot.LINK)
impair = _rows(Slot.IMPAIR)
tap = _rows(Slot.TAP)
number = _rows(Slot.NUMBER)
fired = _rows(Slot.FIRED)
headers = _rows(Slot.HEADERS)
flow = _rows(Slot.FLOW)
rqt = _rows(Slot.RQT)
rqt_entry = _rows(Slot.RQT_ENTRY)
spread = _rows(Slot.SPREAD)
bucket_base = _jit.base_accessor(int(Slot.BUCKET))
pending_base = _jit.base_accessor(int(Slot.PENDING))
node_base = _jit.base_accessor(int(Slot.NODE))
payload_base = _jit.base_accessor(int(Slot.PAYLOAD))
captured_base = _jit.base_accessor(int(Slot.CAPTURED))
srq_wqe_base = _jit.base_accessor(int(Slot.SRQ_WQE))
flow_base = _jit.base_accessor(int(Slot.FLOW))
hash_key_base = _jit.base_accessor(int(Slot.HASH_KEY))
tag_wqe_base = _jit.base_accessor(int(Slot.TAG_WQE))
qp_state_base = _jit.base_accessor(int(Slot.QP_STATE))
