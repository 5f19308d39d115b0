"""Processes that share the tests would each wait for the units they use first: the engine is compiled before them."""

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if not getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        return
    from nicemu.nic.cold_start import compile_all

    compile_all(config.pluginmanager.getplugin("terminalreporter").write_line)
