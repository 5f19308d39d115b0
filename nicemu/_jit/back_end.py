"""LLVM's part of compiling: machine code of a function that numba's front end has lowered. It needs no numba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from nicemu._jit import COLD, TRAPPED

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


@dataclass(frozen=True)
class Target:
    """What code is made for, by LLVM's names, and how well it is optimised, 0 to 3."""

    triple: str
    cpu: str
    features: str
    level: int

    def machine(self) -> Any:
        """LLVM's object of it, without position-independent code, which LLVM's loader has no use for."""
        target = llvm.Target.from_triple(self.triple)
        reloc = "static" if target.name.startswith("x86") else "default"
        return target.create_target_machine(self.cpu, self.features, self.level, reloc, "jitdefault", jit=True)


def here() -> Target:
    """This machine, as numba has it without settings (but for the first CPUs with AVX, where numba does without)."""
    return Target(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), 3)


def object_code(
    native: str, body: Any, symbol: str, arguments: int, returns: bool, python: bool, target: Target
) -> bytes:
    """An ELF object that defines ``symbol``: ``native`` of module ``body`` as a C function, or for ``python`` as one of
    METH_FASTCALL."""
    shape = _python_function if python else _c_function
    text = shape(symbol, native, arguments, returns)
    around = llvm.parse_assembly(f'target datalayout = "{body.data_layout}"\ntarget triple = "{body.triple}"\n{text}')
    around.link_in(body)
    around.verify()
    machine = target.machine()
    _optimize(around, symbol, machine, target.level)
    code: bytes = machine.emit_object(around)
    return code


def _optimize(module: Any, symbol: str, machine: Any, level: int) -> None:
    """Helpers become part of the one function that others see, all but the ``cold`` ones. LLVM by itself would take
    what comes after many checks for rare, and leave it outside."""
    for function in module.functions:
        if function.is_declaration or function.name == symbol:
            continue
        function.linkage = "internal"
        rare = function.name.partition("B")[0] + "B" in COLD or function.name == "nicemu.out_of_range"
        for attribute in ("cold", "noinline") if rare else ("alwaysinline",):
            function.add_function_attribute(attribute)
    tuning = llvm.create_pipeline_tuning_options(speed_level=level)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)


def _call(native: str, arguments: int) -> str:
    """A call by numba's convention: ``%result`` if the function did not raise, else the code that follows."""
    passed = "".join(f", i64 %a{i}" for i in range(arguments))
    return f"""
  %slot = alloca i64
  %raised = alloca ptr
  store i64 0, ptr %slot
  %status = call i32 @"{native}"(ptr %slot, ptr %raised{passed})
  %result = load i64, ptr %slot
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %bad
bad:"""


def _declared(native: str, arguments: int) -> str:
    return f'declare i32 @"{native}"(ptr, ptr{", i64" * arguments})\n'


def _text(name: str, text: str) -> tuple[str, int]:
    """A constant string with its length."""
    data = text.encode()
    quoted = "".join(f"\\{byte:02x}" for byte in data)
    return f'@{name} = private constant [{len(data) + 1} x i8] c"{quoted}\\00"\n', len(data)


def _c_function(symbol: str, native: str, arguments: int, returns: bool) -> str:
    """``int64 f(int64...)``. A unit that trapped answers 0; one that raises is a bug of ours, and says so, too."""
    assert returns, "a unit answers"
    message, length = _text("message", f"nicemu: {symbol} raised\n")
    parameters = ", ".join(f"i64 %a{i}" for i in range(arguments))
    return f"""{message}{_declared(native, arguments)}declare i64 @write(i32, ptr, i64)
define i64 @"{symbol}"({parameters}) {{{_call(native, arguments)}
  %trapped = icmp eq i32 %status, {TRAPPED}
  br i1 %trapped, label %out, label %tell
tell:
  call i64 @write(i32 2, ptr @message, i64 {length})
  br label %out
out:
  ret i64 0
done:
  ret i64 %result
}}
"""


def _python_function(symbol: str, native: str, arguments: int, returns: bool) -> str:
    """``PyObject *f(PyObject *self, PyObject *const *args, Py_ssize_t count)``; ``self`` is the class of the exception
    if the kernel raises. (Numba gives names such as PyExc_RuntimeError a meaning of its own: no use of them here.)"""
    message, _ = _text("message", f"{symbol} raised")
    loads = "".join(
        f"""
  %p{i} = getelementptr ptr, ptr %args, i64 {i}
  %o{i} = load ptr, ptr %p{i}
  %a{i} = call i64 @PyLong_AsLongLong(ptr %o{i})"""
        for i in range(arguments)
    )
    answer = (
        "call ptr @PyLong_FromLongLong(i64 %result)" if returns else "call ptr (ptr, ...) @Py_BuildValue(ptr @none)"
    )
    return f"""{message}{_text("none", "")[0]}{_declared(native, arguments)}
declare i64 @PyLong_AsLongLong(ptr)
declare ptr @PyLong_FromLongLong(i64)
declare ptr @Py_BuildValue(ptr, ...)
declare ptr @PyErr_Occurred()
declare i32 @PyErr_BadArgument()
declare void @PyErr_SetString(ptr, ptr)
define ptr @"{symbol}"(ptr %self, ptr %args, i64 %count) {{
  %enough = icmp eq i64 %count, {arguments}
  br i1 %enough, label %convert, label %refuse
refuse:
  call i32 @PyErr_BadArgument()
  ret ptr null
convert:{loads}
  %error = call ptr @PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %go, label %failed
failed:
  ret ptr null
go:{_call(native, arguments)}
  %trapped = icmp eq i32 %status, {TRAPPED}
  br i1 %trapped, label %done, label %tell
tell:
  call void @PyErr_SetString(ptr %self, ptr @message)
  ret ptr null
done:
  %answer = {answer}
  ret ptr %answer
}}
"""
