"""The exceptions of pyverbs."""

import os

__all__ = ["PyverbsError", "PyverbsRDMAError", "PyverbsUserError"]


class PyverbsError(Exception):
    """The base of all of them. With an `error_code`, the message says which errno that is."""

    def __init__(self, msg: str, error_code: int = -1) -> None:
        if error_code != -1:
            msg = f"{msg}. Errno: {error_code}, {os.strerror(error_code)}"
        super().__init__(msg)


class PyverbsRDMAError(PyverbsError):
    """A verb failed. `error_code` is its errno, or -1 where the verb tells none."""

    def __init__(self, msg: str, error_code: int = -1) -> None:
        super().__init__(msg, error_code)
        self._error_code = error_code

    @property
    def error_code(self) -> int:
        """The errno, or -1."""
        return self._error_code


class PyverbsUserError(PyverbsError):
    """The program asked for something that makes no sense, before any verb was called."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg)
