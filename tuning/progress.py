"""Shows the trials of all processes while they run: bars in a terminal, else one line an epoch and one a trial.

All that is shown was read from the trials' files, a process' own trial like the others'.
"""

import _thread
import threading

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from tuning.command_line import printable
from tuning.tables import describe, duration, is_terminal
from tuning.trials import read_trials


class Progress:
    """A context manager: while it is open, a thread looks at the trials once a second and shows what is new.

    Args:
        oracle: a FolderOracle.
        epochs: of a trial, at most; None where that is not known.
        at_a_time: how many trials run here at a time, for the time that is left.
    """

    def __init__(self, oracle, epochs, at_a_time):
        self.oracle, self.path, self.epochs, self.at_a_time = oracle, oracle.path, epochs, at_a_time
        self.name, self.total = oracle.objective.name, oracle.max_trials
        self.ended = {trial.run for trial in read_trials(self.path).values() if trial.has_ended}
        self.shown = {}  # the runs that were shown, and how many of their epochs
        self.live, self.error, self.over = Live() if is_terminal() else None, None, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        if self.live:
            self.live.start()
            self.live.console.show_cursor(True)  # kill -9 must not leave a terminal without one
        self.thread.start()

    def __exit__(self, *exception):
        self.over.set()
        self.thread.join()
        if self.live:
            self.live.stop()
        if self.error:
            raise self.error

    def _watch(self):
        try:
            while not self.over.wait(1):
                self._look()
            self._look()
        except OSError as error:  # of the output: a full disk, a pipe that nobody reads
            self.error = error
            _thread.interrupt_main()

    def _look(self):
        trials, grid, before = read_trials(self.path), Table.grid(padding=(0, 1)), len(self.ended)
        for trial in trials.values():
            if trial.run in self.ended or not (trial.has_ended or self.oracle.folder.is_alive(trial.process)):
                continue
            rows = trial.epochs(self.path)
            if trial.run not in self.shown:
                print(f"Trial {trial.number} of {self.total}: {describe(trial.proposed)}")
            for epoch in range(self.shown.get(trial.run, 0), 0 if self.live else len(rows)):
                print(
                    f"Trial {trial.number}, epoch {epoch + 1}: {self._value(rows[epoch])}{rows[epoch]['seconds']:.1f} s"
                )
            self.shown[trial.run] = len(rows)
            if trial.has_ended:
                self.ended.add(trial.run)
                print(f"Trial {trial.number} of {self.total}: {self._outcome(trial, rows)}")
            else:
                bar = ProgressBar(self.epochs or 1, len(rows), width=20)
                epoch = f"epoch {len(rows) + 1}" + (f" of at most {self.epochs}" if self.epochs else "")
                grid.add_row(f"trial {trial.number}", bar, f"{self._value(rows[-1]) if rows else ''}{epoch}")
        if len(self.ended) > before and not self.live:
            print(self._summary(trials.values()))
        if self.live:
            ended = sum(trial.has_ended for trial in trials.values())
            grid.add_row("search", ProgressBar(self.total, ended, width=20), self._summary(trials.values()))
            self.live.update(grid)

    def _value(self, row):
        return f"{self.name} {row[self.name]:.4f}, " if self.name in row else ""

    def _outcome(self, trial, rows):
        seconds = duration(trial.ended - trial.started)
        if trial.status == "FAILED":
            return f"failed after {seconds}: {printable(trial.message.splitlines()[0])}"
        epoch = f" in epoch {trial.best_step + 1} of {len(rows)}" if rows and self.name in rows[0] else ""
        return f"{self.name} {trial.score:.4f}{epoch}, {seconds}"

    def _summary(self, trials):
        ended, best = [trial for trial in trials if trial.has_ended], self.oracle.objective.better_than
        text, left, first = f"{len(ended)} of {self.total} trials ended", self.total - len(ended), None
        for trial in ended:
            if trial.status == "COMPLETED" and (not first or best(trial.score, first.score)):
                first = trial
        if first:
            text += f", best so far {first.score:.4f} (trial {first.number})"
        if ended and left > 0:
            seconds = sum(trial.ended - trial.started for trial in ended) / len(ended)
            text += f", about {duration(seconds * left / self.at_a_time)} left"
        return text
