"""Shows the trials of all processes while they run: bars in a terminal, else one line an epoch and one a trial.

All that is shown was read from the trials' files, a process' own trial like the others'.
"""

import _thread
import json
import threading

from rich import progress as bars

from tuning.command_line import printable
from tuning.oracle import ENDED
from tuning.text import describe, duration, is_terminal, print_table, spelled

EPOCHS = "epochs.jsonl"  # in a run's folder: a line for each epoch


def write_epoch(run_folder, metrics, seconds):
    """Appends what was measured in an epoch, a dictionary of floats, to a run's file."""
    with open(run_folder / EPOCHS, "a", encoding="utf-8") as file:
        file.write(json.dumps({"seconds": seconds, "metrics": metrics}) + "\n")


def read_epochs(run_folder):
    """What write_epoch() has written: a list of dictionaries with `seconds` and `metrics`."""
    try:
        lines = (run_folder / EPOCHS).read_text(encoding="utf-8").splitlines()
    except OSError:  # not yet written, or just deleted
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # another process is writing it
            break
    return rows


class Progress:
    """A context manager: while it is open, a thread looks at the trials once a second and shows what is new.

    Args:
        oracle: a FolderOracle.
        epochs: of a trial, at most; None where that is not known.
        at_a_time: trials, for the time that is left.
    """

    def __init__(self, oracle, epochs, at_a_time):
        self.oracle, self.epochs, self.at_a_time = oracle, epochs, at_a_time
        self.shown = {number: None for number, state in oracle.read_states().items() if state["status"] in ENDED}
        self.bars, self.tasks, self.error = None, {}, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        if is_terminal():
            self.bars = bars.Progress(
                bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.fields[text]}"),
            )  # fmt: skip
            self.bars.start()
            self.bars.console.show_cursor(True)  # so that kill -9 does not leave a terminal without one
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

    def _look(self):
        states = self.oracle.read_states()
        running = {}
        for number, state in states.items():
            rows = read_epochs(self.oracle.trial_folder(number) / state["run"])
            if state["status"] in ENDED:
                if self.shown.get(number, 0) is not None:
                    self._show_epochs(number, rows, state)
                    self._show_end(number, state, rows, states)
                self.shown[number] = None
            elif self.oracle.folder.is_alive(state["process"]):
                self._show_epochs(number, rows, state)
                running[number] = rows
        if self.bars:
            self._draw(states, running)

    def _show_epochs(self, number, rows, state):
        seen = self.shown.get(number)
        if seen is None or seen[0] != state["run"]:
            self.shown[number] = seen = state["run"], 0
            print(f"Trial {number} of {self.oracle.max_trials}: {describe(state['proposed'])}")
        name = self.oracle.objective.name
        for epoch, row in enumerate(rows[seen[1]:] if not self.bars else (), start=seen[1] + 1):
            value = f"{name} {row['metrics'][name]:.4f}, " if name in row["metrics"] else ""
            print(f"Trial {number}, epoch {epoch}: {value}{row['seconds']:.1f} s")
        self.shown[number] = state["run"], len(rows)

    def _show_end(self, number, state, rows, states):
        if state["status"] == "COMPLETED":
            outcome = f"{self.oracle.objective.name} {state['score']:.4f}"
            outcome += f" in epoch {state['best_step'] + 1} of {len(rows)}" if rows else ""
        else:
            outcome = f"failed: {printable(state['message'].splitlines()[0])}"
        print(f"Trial {number} of {self.oracle.max_trials}: {outcome}, {duration(state['ended'] - state['started'])}")
        if not self.bars:
            print(self._summary(states))

    def _summary(self, states):
        ended = [state for state in states.values() if state["status"] in ENDED]
        best = min if self.oracle.objective.direction == "min" else max
        scores = {n: state["score"] for n, state in states.items() if state["status"] == "COMPLETED"}
        parts = [f"{len(ended)} of {self.oracle.max_trials} trials have ended"]
        if scores:
            number = best(scores, key=scores.get)
            parts.append(f"best so far {scores[number]:.4f}, trial {number}")
        left = self.oracle.max_trials - len(ended)
        if ended and left > 0:
            seconds = sum(state["ended"] - state["started"] for state in ended) / len(ended)
            parts.append(f"about {duration(seconds * left / self.at_a_time)} left")
        return ", ".join(parts)

    def _draw(self, states, running):
        name = self.oracle.objective.name
        for number, rows in running.items():
            values = [row["metrics"][name] for row in rows if name in row["metrics"]]
            text = f"epoch {len(rows) + 1}" + (f" of at most {self.epochs}" if self.epochs else "")
            text += f", {spelled(name)} {values[-1]:.4f}" if values else ""
            if number not in self.tasks:
                self.tasks[number] = self.bars.add_task(f"trial {number}", total=self.epochs, text=text)
            self.bars.update(self.tasks[number], completed=len(rows), text=text)
        for number in [each for each in self.tasks if each != "search" and each not in running]:
            self.bars.remove_task(self.tasks.pop(number))
        ended = sum(state["status"] in ENDED for state in states.values())
        self.bars.update(self.tasks["search"], completed=ended, text=self._summary(states))


def show_trials(oracle):
    """Prints the trials so far, those that run included."""
    name, rows = oracle.objective.name, []
    for number, state in oracle.read_states().items():
        epochs = read_epochs(oracle.trial_folder(number) / state["run"])
        score, status = state["score"], state["status"].lower()
        if state["status"] not in ENDED:
            score = epochs[-1]["metrics"].get(name) if epochs else None
            status = "running" if oracle.folder.is_alive(state["process"]) else "interrupted"
        shown = "-" if score is None else f"{score:.4f}"
        rows.append([number, status, len(epochs), shown, describe(state["proposed"])])
    print_table(["trial", "status", "epochs", name.replace("_", " "), "hyperparameters"], rows)
