"""Verbs that fail: the table of handlers that the program's commands go through."""

from __future__ import annotations

import errno
import re
from typing import Any

from nicemu.driver.errors import DriverError
from nicemu.lab.inject.entry import Injected
from nicemu.uverbs.dispatch import HANDLERS

CALLS = {re.sub(r"(?<!^)(?=[A-Z])", "_", message.__name__).lower(): message for message in HANDLERS}
"""Messages by the names of their verbs: ``reg_mr``."""


def fail(entry: Injected) -> None:
    """The verb gives the errno, and nothing else happens."""
    handlers, message = entry.lab.endpoint.dispatcher.handlers, CALLS[entry.what.call]
    handler = handlers[message]

    def refuse(dispatcher: Any, command: Any) -> Any:
        if entry.strikes():
            raise DriverError(getattr(errno, entry.what.errno), f"{entry.what.call}: injected fault {entry.number}")
        return handler(dispatcher, command)

    handlers[message] = refuse
