"""Protection domains."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from nicemu.pyverbs._fields import U32, Constant, Struct, expect
from nicemu.pyverbs._resource import Resource, unsupported
from nicemu.pyverbs.base import PyverbsObject, PyverbsRDMAErrno
from nicemu.pyverbs.device import Context
from nicemu.pyverbs.libibverbs_enums import ibv_parent_domain_init_attr_mask
from nicemu.pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from nicemu.uverbs import import_messages, memory_messages, messages

__all__ = [
    "PD",
    "ParentDomain",
    "ParentDomainContext",
    "ParentDomainInitAttr",
    "PyverbsError",
    "PyverbsRDMAErrno",
    "PyverbsRDMAError",
    "PyverbsUserError",
]


class PD(Resource):
    """A protection domain of `creator` (Context). With `handle` an existing one of it (or of the context that it was
    imported from) is imported: closing leaves it. PyverbsRDMAError: ENOENT, no such PD in the context.
    """

    __slots__ = ("_ctx",)
    KIND = "pds"
    CHILDREN: ClassVar[tuple[str, ...]] = ("deks", "mkeys", "parent_domains", "qps", "wqs", "ahs", "mws", "mrs", "srqs")

    def __init__(self, creator: Context, **kwargs: Any) -> None:
        super().__init__()
        if not isinstance(creator, Context):
            raise PyverbsUserError(f"Cannot create PD from {type(creator)}")
        self._kernel = creator._kernel
        if kwargs.get("handle") is not None:
            self._import(creator, U32(kwargs["handle"]))
        else:
            self._handle = self._execute(messages.AllocPd(creator._opened()), "Failed to allocate PD")
        self._ctx: Context | None = creator
        self._attach(creator)

    def _import(self, creator: Context, handle: int) -> None:
        self._execute(import_messages.ImportPd(creator._opened(), handle), "Failed to import PD")
        self._handle, self._imported = handle, True

    def advise_mr(self, advise: int, flags: int, sg_list: Sequence[Any]) -> int:
        """Advise the kernel about parts of MRs: `sg_list` of SGE; 0. PyverbsRDMAError with the kernel's errno."""
        if sg_list is None:
            raise TypeError("Argument 'sg_list' must not be None")
        sges = tuple((sge.addr, sge.length, sge.lkey) for sge in sg_list)
        self._execute(memory_messages.AdviseMr(self._opened(), U32(advise), U32(flags), sges), "Failed to advise MR")
        return 0

    def unimport(self) -> None:
        """Let go of an imported PD."""
        self.close()

    def _destroy(self, handle: int) -> None:
        self._execute(messages.DeallocPd(handle), "Failed to dealloc PD")

    def _release(self) -> None:
        self._ctx = None

    @property
    def handle(self) -> int:
        """The kernel's handle."""
        return self._opened()

    @property
    def pd(self) -> int:
        """A number that stands for the open PD; 0 when closed."""
        return self._handle or 0


class ParentDomainContext(PyverbsObject):
    """The allocator callbacks of a parent domain, and what the program wants them to know.

    `alloc_func(pd, context, size, alignment, resource_type)` returns an address, `free_func(pd, context, address,
    resource_type)` gives it back.
    """

    __slots__ = {"_p_alloc": "", "_p_free": "", "_pd": "", "user_data": "The program's own"}

    def __init__(
        self, pd: PD | None, alloc_func: Callable[..., int], free_func: Callable[..., None], user_data: Any = None
    ) -> None:
        expect(pd, PD, "pd", optional=True)
        super().__init__()
        self._pd, self._p_alloc, self._p_free, self.user_data = pd, alloc_func, free_func, user_data


class ParentDomainInitAttr(Struct):
    """`ibv_parent_domain_init_attr`: the PD below, and the allocator if there is one."""

    __slots__ = ("_pd", "_pd_context")
    comp_mask = Constant(doc="Which members count, as `ibv_parent_domain_init_attr_mask`")

    def __init__(self, pd: PD, pd_context: ParentDomainContext | None = None) -> None:
        expect(pd, PD, "pd")
        expect(pd_context, ParentDomainContext, "pd_context", optional=True)
        super().__init__()
        self._pd, self._pd_context = pd, pd_context
        if pd_context is not None:
            mask = ibv_parent_domain_init_attr_mask
            self._values["comp_mask"] = (
                mask.IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT | mask.IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS
            )


class ParentDomain(PD):
    """A PD with an allocator of the program's for rings: of QPs and SRQs made from it, and of CQEXs that name it.

    It is an object of the library: in the kernel there is only the PD below. PyverbsRDMAError: EINVAL, no such PD.
    """

    __slots__ = ("_allocator", "_below")
    KIND = "parent_domains"
    CHILDREN = ("cqs", *PD.CHILDREN)

    def __init__(self, context: Context, attr: ParentDomainInitAttr) -> None:
        expect(context, Context, "context")
        expect(attr, ParentDomainInitAttr, "attr")
        Resource.__init__(self)
        below, failure = attr._pd, "Failed to allocate Parent Domain"
        if below._handle is None:
            raise PyverbsRDMAError(failure, errno.EINVAL)
        self._kernel = context._kernel
        context._opened()
        if "alloc_parent_domain" in context._software.lacks:
            raise unsupported(failure)
        self._allocator: ParentDomainContext | None = attr._pd_context
        self._handle = below._handle
        self._ctx = context
        self._below: PD | None = below
        self._attach(below)

    def _destroy(self, handle: int) -> None:
        """The kernel does not know of it."""

    def _release(self) -> None:
        self._below = None
        super()._release()
