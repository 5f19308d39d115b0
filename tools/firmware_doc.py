"""Writes the tables of docs/firmware.md from the hooks and the shipped images: `python tools/firmware_doc.py`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nicemu.cli.firmware import tables  # noqa: E402

DOCUMENT = ROOT / "docs" / "firmware.md"
TABLES = {"list": tables.images_markdown, "hooks": tables.hooks_markdown}


def main() -> None:
    """Replace what stands between the marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        begin, end = f"<!-- nicemu firmware {name} --markdown -->\n", "\n<!-- end -->"
        text = re.sub(f"({begin}).*?({end})", lambda found, table=table: found[1] + table() + found[2], text,
                      count=1, flags=re.DOTALL)  # fmt: skip
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
