"""Markdown tables, and figures with their spread."""

import statistics


def table(header, rows):
    """The lines of a table, of cells that are text already."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return [lines[0], "|---" * len(header) + "|", *lines[1:]]


def spread(values, digits=2, of_mean=False):
    """Mean ± standard deviation, or ± standard error ``of_mean``; one value has a dash for it."""
    values = [float(value) for value in values if value is not None]
    if not values:
        return "—"
    return f"{statistics.fmean(values):.{digits}f} ± " + (
        "—" if len(values) == 1 else f"{deviation(values, of_mean):.{digits}f}"
    )


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
