"""How numbers, hyperparameters and tables are printed."""

import shutil
import sys


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def printable(text):
    """The text with a question mark for each character that a terminal would obey instead of show."""
    return "".join(character if character.isprintable() else "?" for character in str(text))


def short(value):
    """The text of a hyperparameter's value: floats with three digits."""
    return printable(f"{value:.3g}" if isinstance(value, float) else value)


def spelled(name):
    """The name of a metric or a hyperparameter as people write it: validation accuracy."""
    return printable(name).replace("val_", "validation ").replace("_", " ")


def describe(values):
    """The hyperparameters of a trial in one line; `values` is a dictionary by their names."""
    return ", ".join(f"{spelled(name)} {short(value)}" for name, value in values.items())


def table(rows):
    """The lines of a table: the first column aligned to the left, the others to the right.

    In a terminal that is too narrow, each row becomes a block of lines.

    Args:
        rows: lists of cells of the same length; the first one has the columns' names.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    if sys.stdout.isatty() and len(lines[0]) > shutil.get_terminal_size().columns:
        (title, *names), *rows = rows
        lines = [
            line
            for first, *cells in rows
            for line in (f"{title} {first}".strip(), *(f"  {name}: {cell}" for name, cell in zip(names, cells)))
        ]
    return lines
