"""Extended completion queues: polled in batches, the members of a completion read one by one."""

from __future__ import annotations

import errno
import struct
from typing import Any

from nicemu.abi.rings import CQE_APP_CTX, CQE_BYTES, CQE_OPCODE, CQE_TAG_LOW, CQE_TIMESTAMP, WALLCLOCK_EPOCH_NS
from nicemu.abi.verbs import WcOpcode
from nicemu.pyverbs import _kernel
from nicemu.pyverbs._cq import CompChannel, CompletionQueue
from nicemu.pyverbs._fields import U16, U32, U64, Field, Struct, expect
from nicemu.pyverbs._text import lines
from nicemu.pyverbs._wc import WC, create_wc_flags_to_str, from_cqe
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import (
    IBV_WC_STANDARD_FLAGS,
    ibv_cq_init_attr_mask,
    ibv_create_cq_attr_flags,
    ibv_create_cq_wc_flags,
)
from nicemu.pyverbs.pd import PD, ParentDomain
from nicemu.pyverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import messages

_WC_FLAGS = (
    IBV_WC_STANDARD_FLAGS
    | ibv_create_cq_wc_flags.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
    | ibv_create_cq_wc_flags.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK
    | ibv_create_cq_wc_flags.IBV_WC_EX_WITH_CVLAN
    | ibv_create_cq_wc_flags.IBV_WC_EX_WITH_TM_INFO
)
_CREATE_FLAGS = (
    ibv_create_cq_attr_flags.IBV_CREATE_CQ_ATTR_SINGLE_THREADED
    | ibv_create_cq_attr_flags.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN
)
_FLAG, _WITH = ibv_create_cq_attr_flags, ibv_create_cq_wc_flags
_MASK_FLAGS = ibv_cq_init_attr_mask.IBV_CQ_INIT_ATTR_MASK_FLAGS
_MASK_PD = ibv_cq_init_attr_mask.IBV_CQ_INIT_ATTR_MASK_PD
_COMP_MASK = _MASK_FLAGS | _MASK_PD
_TIMESTAMP = struct.Struct("<Q")
_TAG, _APP_CTX, _TM_ADD = struct.Struct("<Q"), struct.Struct("<I"), int(WcOpcode.TM_ADD)


class CqInitAttrEx(Struct):
    """`ibv_cq_init_attr_ex`."""

    __slots__ = ("_channel", "_parent_domain")
    cqe = Field(U32, doc="Entries that the CQ needs room for")
    comp_vector = Field(U32, doc="The completion vector, from 0")
    wc_flags = Field(U64, doc="What completions have to tell, as `ibv_create_cq_wc_flags`")
    comp_mask = Field(U32, doc="Which members after it count, as `ibv_cq_init_attr_mask`")
    flags = Field(U32, doc="How to create it, as `ibv_create_cq_attr_flags`")

    def __init__(
        self,
        cqe: int = 100,
        channel: CompChannel | None = None,
        comp_vector: int = 0,
        wc_flags: int = 0,
        comp_mask: int = 0,
        flags: int = 0,
        parent_domain: PD | None = None,
    ) -> None:
        expect(channel, CompChannel, "channel", optional=True)
        expect(parent_domain, PD, "parent_domain", optional=True)
        super().__init__(cqe=cqe, comp_vector=comp_vector, wc_flags=wc_flags, comp_mask=comp_mask, flags=flags)
        self._channel, self._parent_domain = channel, parent_domain

    def _set_cq_context(self, val: Any) -> None:
        """Nothing reads it."""

    cq_context = property(fset=_set_cq_context, doc="Set only: the program's own.")

    @property
    def comp_channel(self) -> CompChannel | None:
        """Where the CQ tells of completions."""
        return self._channel

    @comp_channel.setter
    def comp_channel(self, val: CompChannel | None) -> None:
        expect(val, CompChannel, "val", optional=True)
        self._channel = val

    @property
    def parent_domain(self) -> PD | None:
        """Whose allocator the CQ's buffer comes from."""
        return self._parent_domain

    @parent_domain.setter
    def parent_domain(self, val: PD | None) -> None:
        expect(val, PD, "val", optional=True)
        self._parent_domain = val

    def _refusal(self, lacks: tuple[str, ...]) -> int:
        """The errno for what the emulated device does not have, 0 if it has all; in mlx5's order."""
        mask, able = self.comp_mask, IBV_WC_STANDARD_FLAGS if "wc_extensions" in lacks else _WC_FLAGS
        if not self.cqe or mask & ~_COMP_MASK or self._flags() & ~_CREATE_FLAGS:
            return errno.EINVAL
        if self.wc_flags & ~able:
            return errno.EOPNOTSUPP
        return errno.EINVAL if mask & _MASK_PD and not isinstance(self._parent_domain, ParentDomain) else 0

    def _home(self) -> PD | None:
        """The parent domain, if `comp_mask` names it."""
        return self._parent_domain if self.comp_mask & _MASK_PD else None

    def _flags(self) -> int:
        """The creation flags, if `comp_mask` names them."""
        return self.flags if self.comp_mask & _MASK_FLAGS else 0

    def __str__(self) -> str:
        rows: list[tuple[str, object]] = [
            ("Number of CQEs", self.cqe),
            ("WC flags", create_wc_flags_to_str(self.wc_flags)),
            ("comp mask", self.comp_mask),
            ("flags", self.flags),
        ]
        return lines(rows)


class PollCqAttr(Struct):
    """`ibv_poll_cq_attr`."""

    __slots__ = ()
    comp_mask = Field(U32, doc="Must be 0: there are no further members")


class WcTmInfo(Struct):
    """The tag-matching part of a completion: tag and the program's own 32 bits (`priv`) of the message's header. Set
    with `IBV_WC_TM_MATCH`, else 0."""

    __slots__ = ()
    tag = Field(U64, doc="The tag of the message")
    priv = Field(U32, doc="The program's bits of the tag-matching header")


class CQEX(CompletionQueue):
    """An extended CQ: `start_poll`, the `read_` methods, `poll_next`..., `end_poll`.

    PyverbsRDMAError: EINVAL as for `CQ`, for an unknown `comp_mask` or flag, and for a `parent_domain` that is none;
    EOPNOTSUPP for members of completions that the device does not have: flow tags.

    Calls that C leaves undefined raise PyverbsUserError: a second `start_poll` in a batch (the lock is held; not of a
    single-threaded CQ, which has none), `poll_next` outside of one, and reading a member that was not asked for.
    """

    __slots__ = ("_current", "_in_batch", "_single_threaded", "_tm_info", "_wc_flags")
    CHILDREN = ("srqs", "qps", "wqs")

    def __init__(self, context: Context, init_attr: CqInitAttrEx | None = None) -> None:
        expect(init_attr, CqInitAttrEx, "init_attr", optional=True)
        super().__init__()
        attr = init_attr if init_attr is not None else CqInitAttrEx()
        failure = "Failed to create extended CQ"
        refusal = attr._refusal(context._software.lacks)
        if refusal:
            raise PyverbsRDMAError(failure, refusal)
        self._current = from_cqe(bytearray(CQE_BYTES))
        self._tm_info = 0, 0
        self._in_batch, self._wc_flags = False, attr.wc_flags
        flags = attr._flags()
        self._single_threaded = bool(flags & _FLAG.IBV_CREATE_CQ_ATTR_SINGLE_THREADED)
        overrun, domain = bool(flags & _FLAG.IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN), attr._home()
        try:
            self._create(context, attr.cqe, attr.comp_channel, attr.comp_vector, overrun, domain)
        except OSError as error:
            raise _kernel.failed(failure, error) from error
        if domain is not None:
            self._attach(domain)

    def start_poll(self, attr: PollCqAttr | None = None) -> int:
        """Begin a batch with the first completion: 0; ENOENT, there is none and no batch; EINVAL, a `comp_mask`."""
        expect(attr, PollCqAttr, "attr", optional=True)
        if attr is not None and attr.comp_mask:
            return errno.EINVAL
        if self._in_batch and not self._single_threaded:
            raise PyverbsUserError("start_poll in a batch: end_poll comes first")
        answer = self._next()
        self._in_batch = answer == 0
        return answer

    def poll_next(self) -> int:
        """Go to the next completion: 0, or ENOENT if there is none. On an empty CQ virtual time runs first."""
        self._opened()
        if not self._in_batch:
            raise PyverbsUserError("poll_next outside of a batch: start_poll comes first")
        return self._next()

    def _next(self) -> int:
        self._opened()
        if not self._ring.nonempty() and not self._wait():
            return errno.ENOENT
        entry = self._ring.take(1)[0]
        self._tm_info = _take_tm_info(entry) if entry[CQE_OPCODE] >= _TM_ADD else (0, 0)
        self._current = from_cqe(entry)
        return 0

    def end_poll(self) -> None:
        """End the batch: the device may reuse the entries."""
        self._opened()
        self._in_batch = False
        self._ring.publish()

    def _asked(self, member: ibv_create_cq_wc_flags) -> WC:
        """The current completion, if `member` was asked for when the CQ was made."""
        if not self._wc_flags & member:
            raise PyverbsUserError(f"This CQEX was created without {member.name}")
        return self._current

    @property
    def status(self) -> int:
        """The `ibv_wc_status` of the current completion."""
        return self._current.status

    @status.setter
    def status(self, val: int) -> None:
        self._current.status = val

    @property
    def wr_id(self) -> int:
        """The `wr_id` of the current completion."""
        return self._current.wr_id

    @wr_id.setter
    def wr_id(self, val: int) -> None:
        self._current.wr_id = val

    def read_opcode(self) -> int:
        """The `ibv_wc_opcode`."""
        return self._current.opcode

    def read_vendor_err(self) -> int:
        """The vendor's error code."""
        return self._current.vendor_err

    def read_wc_flags(self) -> int:
        """The `ibv_wc_flags`."""
        return self._current.wc_flags

    def read_byte_len(self) -> int:
        """Bytes received or read."""
        return self._asked(_WITH.IBV_WC_EX_WITH_BYTE_LEN).byte_len

    def read_imm_data(self) -> int:
        """Immediate data as the sender gave it."""
        return self._asked(_WITH.IBV_WC_EX_WITH_IMM).imm_data

    def read_qp_num(self) -> int:
        """The local QP's number."""
        return self._asked(_WITH.IBV_WC_EX_WITH_QP_NUM).qp_num

    def read_src_qp(self) -> int:
        """The remote QP's number (UD)."""
        return self._asked(_WITH.IBV_WC_EX_WITH_SRC_QP).src_qp

    def read_slid(self) -> int:
        """The source LID; 0 on Ethernet."""
        return self._asked(_WITH.IBV_WC_EX_WITH_SLID).slid

    def read_sl(self) -> int:
        """The service level; 0 on Ethernet."""
        return self._asked(_WITH.IBV_WC_EX_WITH_SL).sl

    def read_dlid_path_bits(self) -> int:
        """The path bits of the LID; 0 on Ethernet."""
        return self._asked(_WITH.IBV_WC_EX_WITH_DLID_PATH_BITS).dlid_path_bits

    def read_timestamp(self) -> int:
        """When the device completed it: ticks of its free-running clock, one a virtual nanosecond."""
        return self._ticks(_WITH.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)

    def read_completion_wallclock_ns(self) -> int:
        """When the device completed it: nanoseconds since 1970. Virtual time begins on 1 October 2012, 00:00 UTC."""
        return self._ticks(_WITH.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) + WALLCLOCK_EPOCH_NS

    def _ticks(self, member: ibv_create_cq_wc_flags) -> int:
        stamp: int = _TIMESTAMP.unpack_from(self._asked(member)._image, CQE_TIMESTAMP)[0]
        return stamp

    def read_cvlan(self) -> int:
        """The VLAN tag (priority, 1 bit, VID) that the device took out of the frame; 0 if it took none."""
        return self._asked(_WITH.IBV_WC_EX_WITH_CVLAN).imm_data & U16.high

    def read_flow_tag(self) -> int:
        """The flow tag; the device does not have it."""
        self._asked(_WITH.IBV_WC_EX_WITH_FLOW_TAG)
        return 0

    def read_tm_info(self) -> WcTmInfo:
        """The tag-matching part."""
        self._asked(_WITH.IBV_WC_EX_WITH_TM_INFO)
        tag, priv = self._tm_info
        return WcTmInfo(tag=tag, priv=priv)

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DestroyCq(handle), "Failed to destroy CQEX")

    def __str__(self) -> str:
        return "Extended CQ:\n" + lines([("Handle", self._opened()), ("CQEs", self._cqe)])


def _take_tm_info(entry: bytearray) -> tuple[int, int]:
    """(tag, app_ctx) of a completion of tag matching; the members that they stand in the place of become 0."""
    info = _TAG.unpack_from(entry, CQE_TAG_LOW)[0], _APP_CTX.unpack_from(entry, CQE_APP_CTX)[0]
    _TAG.pack_into(entry, CQE_TAG_LOW, 0)
    _APP_CTX.pack_into(entry, CQE_APP_CTX, 0)
    return info
