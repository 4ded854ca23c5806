"""What the laboratory shows: a table for each rate."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.network.contenders import CONTENDERS
from experiments.record import Record, Row


def show(log: Record, console: Console) -> None:
    """Prints a table of all rows of a record."""
    rows = [row for row in log.rows if row["kind"] == "measurement"]
    hosts = log.rows[0]["config"]["hosts"]
    for rate in dict.fromkeys(row["rate"] for row in rows):
        console.print(table([row for row in rows if row["rate"] == rate], rate, hosts))


def table(rows: list[Row], rate: str, hosts: int) -> Table:
    """All methods at one rate."""
    shown = Table(
        title=f"{hosts} hosts, links: {rate}", box=SIMPLE_HEAD, title_justify="left"
    )
    for column in (
        "method",
        "seconds a step",
        "dense",
        "out",
        "in",
        "messages",
        "wire",
    ):
        shown.add_column(column, justify="left" if column == "method" else "right")
    dense = {row["method"]: row["seconds"] for row in rows}.get("dense")
    for row in rows:
        shown.add_row(
            CONTENDERS[row["method"]].label,
            f"{row['seconds']:.3f}",
            f"{dense / row['seconds']:.1f}" if dense else "",
            f"{row['out']:,.0f}",
            f"{row['into']:,.0f}",
            f"{row['message_bytes']:,.0f}",
            f"{row['wire_bytes']:,.0f}",
        )
    return shown
