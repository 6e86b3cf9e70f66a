"""Shows the trials of all processes while they run: bars in a terminal, else one line an epoch and one a trial.

All that is shown was read from the trials' files, a process' own trial like the others'.
"""

import _thread
import threading

from rich import progress as rich_progress

from tuning.command_line import printable
from tuning.tables import describe, duration, is_terminal, print_table
from tuning.trials import ENDED, read_epochs


class Progress:
    """A context manager: while it is open, a thread looks at the trials once a second and shows what is new.

    Args:
        oracle: a FolderOracle.
        epochs: of a trial, at most; None where that is not known.
        at_a_time: how many trials run here at a time, for the time that is left.
    """

    def __init__(self, oracle, epochs, at_a_time):
        self.oracle, self.epochs, self.at_a_time = oracle, epochs, at_a_time
        self.shown = {}  # the folders of the runs, and how many of their epochs were shown; of ended ones, "end"
        for number, state in oracle.files.read_all().items():
            self.shown[self._run(number, state)] = "end" if state["status"] in ENDED else None
        self.bars, self.tasks, self.error, self.over = None, {}, None, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        if is_terminal():
            columns = "{task.description}", rich_progress.BarColumn(), "{task.fields[text]}"
            self.bars = rich_progress.Progress(*columns)
            self.bars.start()
            self.bars.console.show_cursor(True)  # kill -9 must not leave a terminal without one
            self.tasks["search"] = self.bars.add_task("search", total=self.oracle.max_trials, text="")
        self.thread.start()

    def __exit__(self, *exception):
        self.over.set()
        self.thread.join()
        if self.bars:
            self.bars.stop()
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

    def _run(self, number, state):
        return self.oracle.files.folder(number) / state["run"]

    def _look(self):
        states, running = self.oracle.files.read_all(), {}
        for number, state in states.items():
            run = self._run(number, state)
            if self.shown.get(run) == "end":
                continue
            rows = read_epochs(run)
            if state["status"] not in ENDED and not self.oracle.folder.is_alive(state["process"]):
                continue
            if self.shown.get(run) is None:
                self.shown[run] = 0
                print(f"Trial {number} of {self.oracle.max_trials}: {describe(state['proposed'])}")
            for epoch in range(self.shown[run], len(rows) if not self.bars else 0):
                print(f"Trial {number}, epoch {epoch + 1}: {self._value(rows[epoch])}{rows[epoch]['seconds']:.1f} s")
            self.shown[run] = len(rows)
            if state["status"] in ENDED:
                self.shown[run] = "end"
                print(f"Trial {number} of {self.oracle.max_trials}: {self._outcome(state, rows)}")
                if not self.bars:
                    print(self._summary(states))
            else:
                running[number] = rows
        if self.bars:
            self._draw(running, states)

    def _value(self, row):
        name = self.oracle.objective.name
        return f"{name} {row[name]:.4f}, " if name in row else ""

    def _outcome(self, state, rows):
        seconds = duration(state["ended"] - state["started"])
        if state["status"] == "FAILED":
            return f"failed after {seconds}: {printable(state['message'].splitlines()[0])}"
        epoch = f"in epoch {state['best_step'] + 1} of {len(rows)}, " if rows else ""
        return f"{self.oracle.objective.name} {state['score']:.4f} {epoch}{seconds}"

    def _summary(self, states):
        ended = [state for state in states.values() if state["status"] in ENDED]
        scores = {number: state["score"] for number, state in states.items() if state["status"] == "COMPLETED"}
        text, left = f"{len(ended)} of {self.oracle.max_trials} trials ended", self.oracle.max_trials - len(ended)
        if scores:
            best = (max if self.oracle.objective.direction == "max" else min)(scores, key=scores.get)
            text += f", best so far {scores[best]:.4f} (trial {best})"
        if ended and left > 0:
            seconds = sum(state["ended"] - state["started"] for state in ended) / len(ended)
            text += f", about {duration(seconds * left / self.at_a_time)} left"
        return text

    def _draw(self, running, states):
        for number, rows in running.items():
            text = (self._value(rows[-1]) if rows else "") + f"epoch {len(rows) + 1}"
            if number not in self.tasks:
                self.tasks[number] = self.bars.add_task(f"trial {number}", total=self.epochs, text=text)
            self.bars.update(self.tasks[number], completed=len(rows), text=text)
        for number in self.tasks.keys() - running.keys() - {"search"}:
            self.bars.remove_task(self.tasks.pop(number))
        ended = sum(state["status"] in ENDED for state in states.values())
        self.bars.update(self.tasks["search"], completed=ended, text=self._summary(states))


def show_trials(oracle):
    """Prints the trials so far, those that run included."""
    rows, name = [], oracle.objective.name
    for number, state in oracle.files.read_all().items():
        epochs, value, status = read_epochs(oracle.files.run(number)), state["score"], state["status"].lower()
        if state["status"] not in ENDED:
            value = epochs[-1].get(name) if epochs else None
            status = "running" if oracle.folder.is_alive(state["process"]) else "interrupted"
        score = "-" if value is None else f"{value:.4f}"
        rows.append([number, status, len(epochs), score, describe(state["proposed"])])
    print_table(["trial", "status", "epochs", name.replace("_", " "), "hyperparameters"], rows)
