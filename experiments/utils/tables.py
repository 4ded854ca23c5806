"""Tables for the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table


def narrow(first: str, title: str, caption: str | None = None) -> Table:
    """An empty table with a column of names, and little space between its columns."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(first, no_wrap=True)
    return table
