"""XRC domains."""

from __future__ import annotations

from nicemu.pyverbs._fields import I32, U32, Field, Struct, expect
from nicemu.pyverbs._resource import Resource
from nicemu.pyverbs.base import PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_xrcd_init_attr_mask
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from nicemu.uverbs import srq_messages

__all__ = ["XRCD", "PyverbsError", "PyverbsRDMAErrno", "PyverbsRDMAError", "XRCDInitAttr"]


class XRCDInitAttr(Struct):
    """`ibv_xrcd_init_attr`."""

    __slots__ = ()
    comp_mask = Field(U32, doc="Which members count, as `ibv_xrcd_init_attr_mask`")
    oflags = Field(I32, doc="O_CREAT and O_EXCL, as for `open`")
    fd = Field(I32, doc="The file that identifies the domain; -1 is one of its own")

    def __init__(self, comp_mask: int, oflags: int, fd: int) -> None:
        super().__init__(comp_mask=comp_mask, oflags=oflags, fd=fd)


class XRCD(Resource):
    """An XRC domain: that of the file `fd`, shared by all who open it, or with `fd` -1 one of its own.

    PyverbsRDMAError: EBADF; EAGAIN (the file has none and `oflags` lacks O_CREAT); EINVAL (it has one and O_EXCL is
    set); EOPNOTSUPP without XRC.
    """

    __slots__ = ("_context",)
    KIND = "xrcds"
    CHILDREN = ("qps", "srqs")

    def __init__(self, context: Context, init_attr: XRCDInitAttr) -> None:
        expect(context, Context, "context")
        expect(init_attr, XRCDInitAttr, "init_attr")
        super().__init__()
        self._kernel = context._kernel
        mask = ibv_xrcd_init_attr_mask
        fd = init_attr.fd if init_attr.comp_mask & mask.IBV_XRCD_INIT_ATTR_FD else -1
        flags = init_attr.oflags if init_attr.comp_mask & mask.IBV_XRCD_INIT_ATTR_OFLAGS else 0
        command = srq_messages.OpenXrcd(context._opened(), fd, flags)
        self._handle = self._execute(command, "Failed to allocate XRCD")
        self._context: Context | None = context
        self._attach(context)

    def _destroy(self, handle: int) -> None:
        self._execute(srq_messages.CloseXrcd(handle), "Failed to dealloc XRCD")

    def _release(self) -> None:
        self._context = None
