"""How trials are shown: tables, and while they run, bars in a terminal, else a line an epoch and a trial."""

import contextlib
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuning.trials import read_trials

IS_TERMINAL = sys.stdout.isatty() and not Console().is_dumb_terminal  # one that can move its cursor


def duration(seconds):
    """Seconds as people say them: 0h 12m 03s."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}h {minutes % 60:02d}m {seconds:02d}s"


def short(value):
    """A value as text: floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spelled(name):
    """The name of a metric or a hyperparameter as people write it: validation accuracy."""
    return name.replace("val_", "validation ").replace("_", " ")


def flat(record):
    """The record of a trial without its learning curves, and with its hyperparameters beside its other values."""
    own = {name: value for name, value in record.items() if name not in ("hyperparameters", "curves")}
    return own | {n + " (hyperparameter)" * (n in own): value for n, value in record["hyperparameters"].items()}


def print_trials(records):
    """Prints a table of the records of trials."""
    rows = []
    for each in records:
        score = each["status"].lower() if each["score"] is None else f"{each['score']:.4f}"
        row = flat(each) | {"score": score, "seconds": round(each["seconds"]), "best_epoch": each["best_epoch"] or "-"}
        rows.append({name: row[name] for name in row if name not in ("status", "started", "message")})
    table, names = Table(box=None, pad_edge=False), list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(Text(spelled(name)), justify="right" if name != names[0] else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(short(row.get(name, "-"))) for name in names))
    Console(width=None if IS_TERMINAL else 500, force_terminal=IS_TERMINAL).print(table)


class Progress(contextlib.ExitStack):
    """Shows what is new in the trials' files, whichever process has written it, whenever look() is called."""

    def __init__(self, oracle, epochs, at_a_time):  # `epochs` of a trial, at most: None where that is not known
        super().__init__()
        self.oracle, self.epochs, self.at_a_time, self.looked = oracle, epochs, at_a_time, 0
        self.objective, self.total = oracle.objective, oracle.max_trials
        self.ended = {trial.run: trial.record(self.objective) for trial in oracle.ended.values()}
        self.shown, self.at_most = {}, f" of at most {epochs}" * bool(epochs)  # how many epochs of each run were shown
        self.live = self.enter_context(Live(redirect_stderr=False)) if IS_TERMINAL else None
        if self.live:
            self.live.console.show_cursor(True)  # kill -9 must not leave a terminal without one
        self.callback(self.look, pause=0)

    def look(self, pause=1):
        """Shows what is new, unless that was done less than `pause` seconds ago."""
        if time.monotonic() < self.looked + pause:
            return
        self.looked, before, grid = time.monotonic(), len(self.ended), Table.grid(padding=(0, 1))
        trials = read_trials(self.oracle.folder).values()
        for trial in trials:
            if trial.run in self.ended:
                continue
            name, of, epochs = f"Trial {trial.number}", f"of {self.total}", trial.epochs()
            if trial.run not in self.shown:
                print(f"{name} {of}: {', '.join(f'{spelled(hp)} {short(v)}' for hp, v in trial.proposed.items())}")
            values = [f"{n} {row[n]:.4f}, " if (n := self.objective.name) in row else "" for row in epochs]
            for i in range(self.shown.get(trial.run, 0), 0 if self.live else len(epochs)):
                print(f"{name}, epoch {i + 1}: {values[i]}{epochs[i]['seconds']:.1f} s")
            self.shown[trial.run] = len(epochs)
            if trial.has_ended:
                self.ended[trial.run] = trial.record(self.objective)
                print(f"{name} {of}: {self._outcome(self.ended[trial.run])}")
            else:
                text = f"{''.join(values[-1:])}epoch {len(epochs) + 1}{self.at_most}"
                grid.add_row(name.lower(), ProgressBar(self.epochs or 1, len(epochs), width=20), text)
        records = [self.ended[trial.run] for trial in trials if trial.run in self.ended]
        if self.live:
            grid.add_row("search", ProgressBar(self.total, len(records), width=20), self._summary(records))
            self.live.update(grid)
        elif len(self.ended) > before:
            print(self._summary(records))

    def _outcome(self, record):
        if record["score"] is None:
            return f"failed after {duration(record['seconds'])}: {record['message']}"
        epoch = f" in epoch {record['best_epoch']} of {record['epochs']}" if record["best_epoch"] else ""
        return f"{self.objective.name} {record['score']:.4f}{epoch}, {duration(record['seconds'])}"

    def _summary(self, records):
        text, left = f"{len(records)} of {self.total} trials ended", self.total - len(records)
        if scores := {each["score"]: each["trial"] for each in reversed(records) if each["score"] is not None}:
            best = (max if self.objective.direction == "max" else min)(scores)
            text += f", best so far {best:.4f} (trial {scores[best]})"
        if records and left > 0:
            seconds = sum(each["seconds"] for each in records) / len(records)
            text += f", about {duration(seconds * left / self.at_a_time)} left"
        return text
