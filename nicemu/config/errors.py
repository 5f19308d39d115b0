"""One line for bad input: file, line, field, what was expected, what was given."""


class ConfigError(Exception):
    """The input of a user is wrong. `str()` is one line; the command line prints it and exits with status 2."""

    exit_status = 2

    def __init__(self, message: str, *, file: str = "", line: int = 0) -> None:
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + " ".join(message.split()))
        self.file = file
        self.line = line


def field_error(field: str, expected: str, given: object, *, file: str = "", line: int = 0) -> ConfigError:
    """The error for one field: `FILE:LINE: field nic.costs.zap_ns: expected int >= 0, given 'x'`."""
    text = repr(given)
    if len(text) > 80:
        text = text[:77] + "..."
    return ConfigError(f"field {field}: expected {expected}, given {text}", file=file, line=line)
