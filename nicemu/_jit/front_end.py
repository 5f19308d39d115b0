"""Numba's front end without its back end: a helper is lowered to LLVM code and left alone.

Numba by itself optimises every function with all it calls, and makes machine code of it. Here nobody runs a helper by
itself, so a :class:`Lowered` library only keeps the code; :meth:`Lowered.linked` is a unit with its helpers, which is
optimised and emitted once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import (
    DeadBranchPrune,
    FixupArgs,
    GenericRewrites,
    IRProcessing,
    ReconstructSSA,
    RewriteSemanticConstants,
    TranslateByteCode,
)

PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, RewriteSemanticConstants, DeadBranchPrune, GenericRewrites,
    ReconstructSSA, NopythonTypeInference, PreLowerStripPhis, IRLegalization, NativeLowering, NoPythonBackend,
)  # fmt: skip
"""What a kernel needs of numba's passes, in its order: none for closures, generators, arrays, ``with`` and the like."""


class Lowered(JITCodeLibrary):
    """The code of one function, and the libraries of those that it calls."""

    def add_llvm_module(self, ll_module: Any) -> None:
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """None: numba makes a Python object of it, which nobody calls."""
        self._ensure_finalized()
        return 0

    def _get_module_for_linking(self) -> Any:
        """For a caller that numba compiles all the way."""
        return self.linked()

    def linked(self) -> Any:
        """A new module of it and everything it calls. What numba compiled all the way comes last: the linker takes of
        such a module only what is asked for by then."""
        module = llvm.parse_assembly(str(self._codegen._create_empty_module(self.name)))
        libraries = self._needed({})
        for library in libraries:
            if isinstance(library, Lowered):
                module.link_in(library._final_module, preserve=True)
        for function in module.functions:
            if not function.is_declaration:
                function.linkage = "linkonce_odr"
        for library in libraries:
            if not isinstance(library, Lowered):
                module.link_in(library._get_module_for_linking(), preserve=True)
        return module

    def _needed(self, found: dict[Any, None]) -> dict[Any, None]:
        """This library and all that it calls, each once, after ``found``."""
        found[self] = None
        for library in self._linking_libraries:
            if library not in found:
                if isinstance(library, Lowered):
                    library._needed(found)
                found[library] = None
        return found


class _Codegen(JITCPUCodegen):
    _library_class = Lowered

    def set_env(self, env_name: str, env: Any) -> None:
        """Nothing: there is no such variable in memory."""


@functools.cache
def _codegen() -> _Codegen:
    return _Codegen("nicemu")


class FrontEnd(CompilerBase):
    """Numba's compiler with the passes of :data:`PASSES`, writing into a :class:`Lowered` library."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        for each in PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]

    def compile_extra(self, func: Callable) -> Any:
        self.state.library = _codegen().create_library(func.__qualname__)
        return super().compile_extra(func)
