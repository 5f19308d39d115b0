"""Numba's part of compiling: the one place that names its options. Importing it imports numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types
from numba.core import config as numba_config
from numba.core.datamodel.models import OpaqueModel
from numba.core.registry import cpu_target
from numba.extending import register_model, typeof_impl

from nicemu._jit import Kernel, Native
from nicemu._jit.back_end import Target
from nicemu._jit.front_end import FrontEnd

OPTIONS = {"error_model": "numpy"}
CALLEE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False, "pipeline_class": FrontEnd}
"""Nobody but compiled code calls it, and it allocates nothing that somebody counts references to."""


class Callee(types.Dispatcher):
    """The type of a helper. It is compiled for an int, not for each constant that it is called with."""

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        args = tuple(types.unliteral(each) for each in args)
        return super().get_call_type(context, args, {name: types.unliteral(each) for name, each in kws.items()})


register_model(Callee)(OpaqueModel)


@typeof_impl.register(Kernel)
def _type_of_kernel(kernel: Kernel, _: Any) -> types.Type:
    return Callee(kernel.dispatcher)


@typeof_impl.register(Native)
def _type_of_native(native: Native, _: Any) -> types.Type:
    context = cpu_target.typing_context
    intrinsic = native.intrinsic
    context.refresh()
    return context.resolve_value_type(intrinsic)


def callee(function: Callable) -> Any:
    """The dispatcher of a helper."""
    return njit(**OPTIONS, **CALLEE)(function)


def callable_from_python(function: Callable) -> Callable:
    """A helper for Python, of whatever types it is called with."""
    made: Callable = njit(**OPTIONS)(function)
    return made


def lowered(function: Callable, arguments: int, returns: bool) -> tuple[str, Any]:
    """A function of int64 arguments as LLVM's code, with all that it calls: its name there, and the module."""
    result = types.int64 if returns else types.void
    signature = result(*[types.int64] * arguments)
    (compiled,) = njit(signature, **OPTIONS, **CALLEE)(function).overloads.values()
    return compiled.fndesc.mangled_name, compiled.library.linked()


def target() -> Target:
    """What numba compiles for."""
    return Target(*cpu_target.target_context.codegen().magic_tuple(), int(numba_config.OPT))
