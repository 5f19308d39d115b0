"""Uid 0 for tests that ask for it, without being root: in a user namespace that maps us to it (user_namespaces(7))."""

import ctypes
import os
from pathlib import Path

CLONE_NEWUSER = 0x10000000


def become_root() -> str:
    """Try to have uid 0 in this process, which must have one thread only; says what it runs as."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return "root"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        return f"uid {uid} (no user namespace: {os.strerror(ctypes.get_errno())}); tests that need root skip"
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        return f"uid {uid} (its user namespace could not be set up: {error.strerror}); tests that need root skip"
    return f"root of a user namespace (uid {uid} outside)"
