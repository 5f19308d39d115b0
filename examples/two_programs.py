"""Run two programs that talk to each other, a server and a client, as two threads of one process.

    nicemu run --name mlx5_0 examples/two_programs.py server.py -d mlx5_0 -- client.py -d mlx5_0 127.0.0.1

Many pyverbs programs exchange QP numbers over a TCP socket and then do verbs; on real NICs they are two processes. Here
both find the same emulated device, so no change is needed. Each has its own `sys.argv` and its own `__main__`; modules
that both import are shared, and so are the working directory and the environment. The second starts
half a second after the first. The exit status is the number of programs that failed.
"""

import os
import runpy
import sys
import threading
import time
import traceback


class ArgumentsOfThread(list):
    """A `sys.argv` that every thread sees its own of; threads that a program starts see the first program's."""

    def __init__(self, arguments):
        super().__init__(arguments)
        self.own = threading.local()

    def _list(self):
        return getattr(self.own, "argv", None) or [*super().__iter__()]

    def __getitem__(self, index):
        return self._list()[index]

    def __iter__(self):
        return iter(self._list())

    def __len__(self):
        return len(self._list())


class Program(threading.Thread):
    """One program; `failed` when it raised or exited with another status than 0."""

    def __init__(self, argv):
        super().__init__(name=os.path.basename(argv[0]))
        self.argv, self.failed = argv, False

    def run(self):
        sys.argv.own.argv = self.argv
        try:
            runpy.run_path(self.argv[0], run_name="__main__")
        except SystemExit as done:
            self.failed = bool(done.code)
        except BaseException:
            self.failed = True
            traceback.print_exc()


def main():
    words = sys.argv[1:]
    if words.count("--") != 1 or not all((words[: words.index("--")], words[words.index("--") + 1 :])):
        sys.exit("usage: two_programs.py SERVER [ARGUMENT...] -- CLIENT [ARGUMENT...]")
    at = words.index("--")
    programs = [Program(words[:at]), Program(words[at + 1 :])]
    for program in programs:
        sys.path.insert(0, os.path.dirname(os.path.abspath(program.argv[0])))
    sys.argv = ArgumentsOfThread(words[:at])
    programs[0].start()
    time.sleep(0.5)  # for the server to listen
    programs[1].start()
    for program in programs:
        program.join()
    sys.exit(sum(program.failed for program in programs))


if __name__ == "__main__":
    main()
