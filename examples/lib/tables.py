"""Reports in Markdown: pages, and figures with their spread."""

import pathlib
import statistics

PAGES = pathlib.Path(__file__).parent / "pages"


def page(name, **parts):
    """The text of ``pages/NAME.md`` with its ``{parts}`` filled in, and each paragraph on one line.
    A part that is a list has lines of its own."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    paragraphs = "\n\n".join(part.replace("\n", " ") for part in text.strip().split("\n\n"))
    lines = {key: "\n".join(p) if isinstance(p, list) else p for key, p in parts.items()}
    return paragraphs.format(**lines) + "\n"


def spread(values, digits=2, of_mean=False):
    """Mean ± standard deviation, or ± standard error ``of_mean``; one value has a dash for it."""
    values = [float(value) for value in values if value is not None]
    if not values:
        return "—"
    return f"{statistics.fmean(values):.{digits}f} ± " + (
        "—" if len(values) == 1 else f"{deviation(values, of_mean):.{digits}f}"
    )


def spreads(rows, keys, digits=2, of_mean=False):
    """Cells of several figures of rows; of a row that lacks one it is left out."""
    return [spread([row.get(key) for row in rows], digits, of_mean) for key in keys]


def deviation(values, of_mean=False):
    """The standard deviation, or the standard error ``of_mean``; None of one value."""
    if len(values) < 2:
        return None
    return statistics.stdev(values) / (len(values) ** 0.5 if of_mean else 1)


def grouped(rows, *keys):
    """Rows by the values of ``keys``, in their order: ``{(value, ...): [row, ...]}``."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups
