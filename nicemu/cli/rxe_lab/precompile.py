"""What the guest would otherwise compute at every start: compiled Python files, and depmod's index of the modules.

Both are made by the guest's own programs, run on the host by the guest's own dynamic loader, which takes an x86-64
host. Elsewhere, or if one of them fails, the guest does the same work itself: slower, not otherwise.
"""

import contextlib
import platform
import re
import subprocess
from pathlib import Path

from nicemu.cli.rxe_lab.tree import Tree

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"
PYTHON = re.compile(r"usr/bin/python3|usr/lib/python3|usr/lib/x86_64-linux-gnu/[^/]*$")
KMOD = re.compile(r"usr/s?bin/(kmod|depmod)$|usr/lib/x86_64-linux-gnu/[^/]*$")


def python(root: Tree, scratch: Path) -> None:
    """Add a .pyc beside every module of the guest's Python: start-up is most of a short program's time in emulation."""
    version = next(
        (found[0] for path in root.entries if (found := re.match(r"usr/lib/python3\.\d+(?=/os\.py$)", path))), ""
    )
    if not _can_run(root) or not version:
        return
    root.write(scratch, lambda path: PYTHON.match(path) is not None)
    interpreter = scratch / "usr/bin" / version.rpartition("/")[2]
    folders = [str(scratch / version), str(scratch / "usr/lib/python3/dist-packages")]
    options = ["-q", "-j1", "-s", str(scratch), "-p", "/", "--invalidation-mode", "unchecked-hash"]
    environment = {"PYTHONHOME": str(scratch / "usr"), "PYTHONDONTWRITEBYTECODE": "1"}
    _run(scratch, [str(interpreter), "-S", "-m", "compileall", *options, *folders], environment)
    for file in sorted(scratch.rglob("*.pyc")):
        root.add_file(str(file.relative_to(scratch)), file.read_bytes())


def module_index(root: Tree, modules: Tree, scratch: Path) -> None:
    """Add modules.dep, modules.alias and their like: `depmod`, without which modprobe finds nothing."""
    release = next(
        path.split("/")[3] for path in modules.entries if path.startswith("usr/lib/modules/") and path.endswith(".ko")
    )
    if not _can_run(root):
        return
    root.write(scratch, lambda path: KMOD.match(path) is not None)
    modules.write(scratch / "of", lambda _: True)
    depmod = str(scratch / "usr/bin/kmod")
    _run(scratch, ["--argv0", "depmod", depmod, "-b", str(scratch / "of/usr"), release], {})
    folder = scratch / "of/usr/lib/modules" / release
    for file in sorted(folder.glob("modules.*")):
        modules.add_file(f"usr/lib/modules/{release}/{file.name}", file.read_bytes())


def _can_run(root: Tree) -> bool:
    return platform.machine() == "x86_64" and LOADER in root


def _run(scratch: Path, command: list[str], environment: dict[str, str]) -> None:
    """A program of the guest; its failure is no error, see above."""
    (scratch / LOADER).chmod(0o700)
    loader = [str(scratch / LOADER), "--library-path", str(scratch / LIBRARIES)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([*loader, *command], env={"PATH": "/usr/bin:/bin", **environment}, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)  # fmt: skip
