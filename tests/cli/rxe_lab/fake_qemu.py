"""Stands in for QEMU: takes its command line and acts as the guest that the test has written down.

FAKE_QEMU names a folder with `starts.json`, a list of starts: each is a list of steps (what, argument) with what one of
control, out, err, dmesg, console, errors (that text goes there), echo (a line of the keyboard comes back), exit (a
status) and hang. Without a step `exit` it waits to be killed, as the guest does after its last line. Each start leaves
its command line in `start-N.json`, with its process number at the end.
"""

import json
import os
import sys
import time
from pathlib import Path

if sys.argv[1:] == ["--version"]:
    print(f"QEMU emulator version {os.environ.get('FAKE_VERSION', '7.2.22 (fake)')}")
    sys.exit()
folder = Path(os.environ["FAKE_QEMU"])
number = len(list(folder.glob("start-*.json")))
(folder / "start.tmp").write_text(json.dumps([*sys.argv[1:], f"pid={os.getpid()}"]))
(folder / "start.tmp").rename(folder / f"start-{number}.json")
files = {"console": 1, "errors": 2}
descriptors = [word.partition(",")[0].removeprefix("fd=") for word in sys.argv if word.startswith("fd=")]
names = [word.rpartition("name=nicemu.")[2] for word in sys.argv if word.startswith("virtserialport")]
files |= {name: int(descriptor) for name, descriptor in zip(names, descriptors, strict=True)}
for what, argument in json.loads((folder / "starts.json").read_text())[number]:
    if what == "exit":
        sys.exit(argument)
    if what == "echo":
        os.write(1, sys.stdin.buffer.readline())
    elif what != "hang":
        os.write(files[what], argument.encode())
time.sleep(600)
