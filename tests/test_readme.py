"""What the README says was measured: its figures are those of the committed files in benchmarks/."""

import re
import statistics
import sys
import textwrap

import keras_tuner as kt
import pytest
from conftest import ROOT

from tuning import comparison, report

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


@pytest.mark.parametrize("strategy", study.SCRIPTS)
def test_the_outputs_shown_are_those_of_the_searches_with_seed_1(strategy):
    ranking = report.best_first(summary(strategy)["trials"], OBJECTIVE)
    assert shown(report.trials_table(ranking, OBJECTIVE))
    assert shown(report.result_lines(summary(strategy)))


def test_the_searches_side_by_side_are_those_with_seed_1():
    lines = comparison.comparison_table([summary(strategy) for strategy in study.SCRIPTS])
    assert "\n".join(f"    {line}".rstrip() for line in lines) in README


def test_the_first_table_has_what_was_published_and_the_means_of_the_searches():
    rows = [line for line in MEASURED["published"].splitlines() if line.startswith("|")]
    assert rows and all(row in README for row in rows)
    searches = [row for row in SEARCHES if row["strategy"] == "random search"]
    for model, name in (("one network", "test_accuracy"), ("best four together", "best_four_test_accuracy")):
        accuracy = statistics.mean(row[name] for row in searches)
        assert re.search(rf"random_search_tuning\.py`, .*{model}.*mean of {len(searches)} seeds \| {accuracy:.4f} \|", README)


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join(MEASURED.values())
    for row in (*SEARCHES, *TRIALS):
        measured += "".join(f"{value:.4f} " for name, value in row.items() if name.endswith("accuracy") and value)
    for strategy in study.SCRIPTS:
        for name in ("test_accuracy", "best_four_test_accuracy"):
            measured += f"{statistics.mean(row[name] for row in SEARCHES if row['strategy'] == strategy):.4f} "
    accuracies = set(re.findall(r"\b0\.\d{4}\b", README))
    assert len(accuracies) > 5 and accuracies <= set(re.findall(r"\b0\.\d{4}\b", measured))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 170 and len(README.split()) <= 1500
