"""How numbers, hyperparameters and tables are printed."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuning.command_line import printable


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def short(value):
    """The text of a hyperparameter's value: floats with three digits."""
    return printable(f"{value:.3g}" if isinstance(value, float) else value)


def spelled(name):
    """The name of a metric or a hyperparameter as people write it: validation accuracy."""
    return printable(name).replace("val_", "validation ").replace("_", " ")


def describe(values):
    """The hyperparameters of a trial in one line; `values` is a dictionary by their names."""
    return ", ".join(f"{spelled(name)} {short(value)}" for name, value in values.items())


def is_terminal():
    """Whether the output goes to a terminal that can move its cursor."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def print_table(header, rows):
    """Prints a table: the first column aligned to the left, the others to the right.

    Args:
        header: the columns' names.
        rows: lists of as many cells.
    """
    table = Table(box=box.SIMPLE_HEAD if is_terminal() else None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(Text(printable(name)), justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if is_terminal() else 500, highlight=False).print(table)
