"""The bars that samplers show in a terminal."""

from tqdm.auto import tqdm


def progress_bar(description: str, total: int | None = None) -> tqdm:
    """A bar that is shown only where there is a terminal, and goes when it is done."""
    return tqdm(desc=description, total=total, disable=None, leave=False)
