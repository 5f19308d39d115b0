"""Copies that survive bad addresses: ``copied = call(code, destination, source, length)`` gives how many bytes came.

A program may unmap or protect its memory behind our back. On x86-64 the handler of SIGSEGV and SIGBUS lets the routine
end early if one of its instructions faulted; other faults go to whoever had the signal. A probe is one load,
``call(code, address, 0, 0)``. Elsewhere, and as plain Python, there are none, and
:mod:`nicemu.memory.copy` asks the kernel: 1.6 us a packet.
"""

from __future__ import annotations

import functools
import platform
import signal
import sys

from nicemu import _jit
from nicemu._jit import object_code

ACTION_BYTES, FLAGS_AT, RIP_AT, CODE_AT = 152, 136, 168, 8
"""Of ``struct sigaction``; in it; in ``ucontext_t``, and in ``siginfo_t`` (Linux on x86-64, glibc)."""
SA_SIGINFO, SA_ONSTACK, SA_NODEFER = 4, 0x08000000, 0x40000000
SIGNALS = (int(signal.SIGSEGV), int(signal.SIGBUS))

VECTORS = r"""
  cmpq $128, %rcx
  jb 2f
  .p2align 4
1:
  vmovdqu (%rsi), %ymm0
  vmovdqu 32(%rsi), %ymm1
  vmovdqu 64(%rsi), %ymm2
  vmovdqu 96(%rsi), %ymm3
  vmovdqu %ymm0, (%rdi)
  vmovdqu %ymm1, 32(%rdi)
  vmovdqu %ymm2, 64(%rdi)
  vmovdqu %ymm3, 96(%rdi)
  subq $-128, %rsi
  subq $-128, %rdi
  addq $-128, %rcx
  cmpq $128, %rcx
  jae 1b
2:
  cmpq $32, %rcx
  jb 4f
3:
  vmovdqu (%rsi), %ymm0
  vmovdqu %ymm0, (%rdi)
  addq $32, %rsi
  addq $32, %rdi
  subq $32, %rcx
  cmpq $32, %rcx
  jae 3b
4:
  vzeroupper
  testq %rcx, %rcx
  jz nicemu_copy_end
"""
"""What a CPU with AVX2 does first: other instructions go on beside it, which they do not beside ``rep movsb``."""

COPY = r"""
  .text
  .globl nicemu_copy
  .type nicemu_copy, @function
nicemu_copy:
  movq %rdx, %rcx
  .globl nicemu_copy_fault
nicemu_copy_fault:
  rep movsb
  .globl nicemu_copy_end
nicemu_copy_end:
  movq %rdx, %rax
  subq %rcx, %rax
  retq
  .size nicemu_copy, . - nicemu_copy
  .globl nicemu_probe
  .type nicemu_probe, @function
nicemu_probe:
  .globl nicemu_probe_fault
nicemu_probe_fault:
  movb (%rdi), %al
  movl $1, %eax
  retq
  .globl nicemu_probe_end
nicemu_probe_end:
  xorl %eax, %eax
  retq
  .size nicemu_probe, . - nicemu_probe
"""
"""Bytes copied, at least: what a fault leaves in rcx did not come, or not all of it. 1: an address can be read, else
0."""

HANDLER = f"""
declare void @nicemu_copy_fault()
declare void @nicemu_copy_end()
declare void @nicemu_probe_fault()
declare void @nicemu_probe_end()
declare i32 @sigaction(i32, ptr, ptr)
declare i32 @raise(i32)
@depth = internal global i64 0
@nicemu_ours = internal global [{ACTION_BYTES} x i8] zeroinitializer, align 16
@nicemu_before = internal global [{ACTION_BYTES * 32} x i8] zeroinitializer, align 16
@nicemu_default = internal global [{ACTION_BYTES} x i8] zeroinitializer, align 16

define void @nicemu_on_fault(i32 %signal, ptr %info, ptr %context) {{
  %rip = getelementptr i8, ptr %context, i64 {RIP_AT}
  %at = load ptr, ptr %rip
  %copy.begun = icmp uge ptr %at, @nicemu_copy_fault
  %copy.goes.on = icmp ult ptr %at, @nicemu_copy_end
  %copies = and i1 %copy.begun, %copy.goes.on
  %probes = icmp eq ptr %at, @nicemu_probe_fault
  %ours = or i1 %copies, %probes
  br i1 %ours, label %recover, label %stranger
recover:
  %end = select i1 %copies, ptr @nicemu_copy_end, ptr @nicemu_probe_end
  store ptr %end, ptr %rip
  ret void
stranger:
  %code.at = getelementptr i8, ptr %info, i64 {CODE_AT}
  %code = load i32, ptr %code.at
  %sent = icmp sle i32 %code, 0
  %index = zext i32 %signal to i64
  %offset = mul i64 %index, {ACTION_BYTES}
  %before = getelementptr i8, ptr @nicemu_before, i64 %offset
  %handler = load ptr, ptr %before
  %number = ptrtoint ptr %handler to i64
  %is.function = icmp ugt i64 %number, 1
  %depth = load i64, ptr @depth
  %nested = icmp ugt i64 %depth, 0
  %raised.again = and i1 %nested, %sent
  br i1 %raised.again, label %default, label %owner
owner:
  br i1 %is.function, label %ask, label %leave
ask:
  %deeper = add i64 %depth, 1
  store i64 %deeper, ptr @depth
  %flags.at = getelementptr i8, ptr %before, i64 {FLAGS_AT}
  %flags = load i32, ptr %flags.at
  %masked = and i32 %flags, {SA_SIGINFO}
  %wants.info = icmp ne i32 %masked, 0
  br i1 %wants.info, label %with.info, label %without
with.info:
  call void %handler(i32 %signal, ptr %info, ptr %context)
  br label %asked
without:
  call void %handler(i32 %signal)
  br label %asked
asked:
  store i64 %depth, ptr @depth
  ret void
default:
  %reset = call i32 @sigaction(i32 %signal, ptr @nicemu_default, ptr null)
  br label %again
leave:
  %restored = call i32 @sigaction(i32 %signal, ptr %before, ptr null)
  br label %again
again:
  br i1 %sent, label %pass, label %out
pass:
  %raised = call i32 @raise(i32 %signal)
  br label %out
out:
  ret void
}}

define internal void @watch(i32 %signal) {{
  %index = zext i32 %signal to i64
  %offset = mul i64 %index, {ACTION_BYTES}
  %before = getelementptr i8, ptr @nicemu_before, i64 %offset
  %now = alloca [{ACTION_BYTES} x i8], align 16
  %asked = call i32 @sigaction(i32 %signal, ptr null, ptr %now)
  %handler = load ptr, ptr %now
  %ours = icmp eq ptr %handler, @nicemu_on_fault
  br i1 %ours, label %out, label %set
set:
  call void @llvm.memcpy.p0.p0.i64(ptr %before, ptr %now, i64 {ACTION_BYTES}, i1 false)
  store ptr @nicemu_on_fault, ptr @nicemu_ours
  %flags = getelementptr i8, ptr @nicemu_ours, i64 {FLAGS_AT}
  store i32 {SA_SIGINFO | SA_ONSTACK | SA_NODEFER}, ptr %flags
  %done = call i32 @sigaction(i32 %signal, ptr @nicemu_ours, ptr null)
  br label %out
out:
  ret void
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define i64 @nicemu_watch(i64 %a, i64 %b, i64 %c) {{
  store i64 0, ptr @depth
  {"".join(f"call void @watch(i32 {number})" + chr(10) + "  " for number in SIGNALS)}ret i64 0
}}
"""
"""A fault that is not the copy's is its owner's: the handler that was there before is called, and may repair it. One
that raises the signal again to die, as ``faulthandler`` does, gets what it wants."""


def is_native() -> bool:
    """The copy is compiled code with a signal handler."""
    return _jit.JIT and platform.machine() == "x86_64" and sys.platform == "linux"


@functools.cache
def codes() -> tuple[int, int, int]:
    """Code addresses: of the copy, of the probe, and of what makes sure that the handler is still there, to be called
    when the program ran. Zeros where there is no such copy."""
    if not is_native():
        return 0, 0, 0
    text = COPY.replace("  rep movsb", f"{VECTORS}  rep movsb") if object_code.cpu_has("avx2") else COPY
    code = "".join(f'module asm "{line}"\n' for line in text.splitlines())
    copy, probe, watch = object_code.load_assembly(code + HANDLER, "nicemu_copy", "nicemu_probe", "nicemu_watch")
    return copy, probe, watch
