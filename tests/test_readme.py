"""What the README says was measured: its figures are those of the committed files in benchmarks/."""

import re
import sys
import textwrap

import keras_tuner as kt
from conftest import ROOT

from tuning import report

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a workers.py of its own
import study

README = (ROOT / "README.md").read_text()
PROSE = " ".join(README.split())
MEASURED = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.md") if path.stem != "README"}
SEARCHES, TRIALS = study.read(study.SEARCHES), study.read(study.TRIALS)
OBJECTIVE = kt.Objective("val_accuracy", "max")


def summary(strategy):
    """What summary.json of the search with seed 1 held, as far as the printed lines need it."""
    search, = study.of(SEARCHES, strategy, 1)
    values = {name: search[name] for name in study.HYPERPARAMETERS}
    four = {name.removeprefix("best_four_"): search[name] for name in search if name.startswith("best_four_")}
    trials = [
        trial | {"hyperparameters": {name: trial[name] for name in study.HYPERPARAMETERS}}
        for trial in study.of(TRIALS, strategy, 1)
    ]
    return {
        "strategy": strategy,
        "settings": {},
        "objective": {"name": "val_accuracy", "direction": "max"},
        "best": search | {"hyperparameters": values},
        "best_four": four | {"trials": range(4)},
        "elapsed_seconds": search["seconds"],
        "trials": trials,
    }


def shown(lines):
    return textwrap.indent("\n".join(lines), "    ") in README


def test_the_output_shown_is_that_of_the_search_with_seed_1():
    ranking = report.best_first(summary("random search")["trials"], OBJECTIVE)
    assert shown(report.trials_table(ranking, OBJECTIVE))
    assert shown(report.result_lines(summary("random search")))


def test_the_first_table_has_what_was_published_and_the_search_with_seed_1():
    rows = [line for line in MEASURED["published"].splitlines() if line.startswith("|")]
    assert rows and all(row in README for row in rows)
    search, = study.of(SEARCHES, "random search", 1)
    minutes = f"{search['seconds'] / 60:.0f} min"
    assert f"seed 1: best model, one network | {search['test_accuracy']:.4f} | {minutes} |" in README
    assert f"best four trials together | {search['best_four_test_accuracy']:.4f} |" in README


def test_the_short_trials_rank_as_is_said():
    text = study.short_trials(study.of(TRIALS, "random search", 1))
    correlation = re.search(r"correlation of (0\.\d\d)", text)[1]
    assert f"have another order (rank correlation {correlation})" in PROSE
    short, full = zip(*study.pairs(study.of(TRIALS, "random search", 1)))
    ranks = [[[row["trial"] for row in report.best_first(rows, OBJECTIVE)].index(trial) + 1 for trial in (4, 6)]
             for rows in (short, full)]
    assert ranks == [[2, 3], [7, 8]]


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join(MEASURED.values())
    for row in (*SEARCHES, *TRIALS):
        measured += "".join(f"{value:.4f} " for name, value in row.items() if name.endswith("accuracy") and value)
    accuracies = set(re.findall(r"\b0\.\d{4}\b", README))
    assert len(accuracies) > 5 and accuracies <= set(re.findall(r"\b0\.\d{4}\b", measured))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 170 and len(README.split()) <= 1500
