"""Tables in Markdown, with the numbers behind them in JSON."""

import os
from collections.abc import Iterable
from typing import Any

from .files import write_json, write_text


def table(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> list[str]:
    """The lines of a table."""
    header = list(header)
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows)]
    return [lines[0], "|---" * len(header) + "|", *lines[1:]]


def publish(folder: str, name: str, text: str, results: Any) -> str:
    """Write a report and the numbers behind it; the report."""
    base = os.path.join(folder, name)
    write_json(f"{base}.json", results)
    write_text(f"{base}.md", text)
    return text
