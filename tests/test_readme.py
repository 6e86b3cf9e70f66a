"""What the README says was measured: its figures are those of the committed files in benchmarks/."""

import re
import statistics
import sys
import textwrap

import keras_tuner as kt
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


def mean_of_three(name):
    """The mean over random search with seeds 1, 2 and 3."""
    return statistics.mean(study.of(SEARCHES, "random search", seed)[0][name] for seed in (1, 2, 3))


def shown(lines):
    return textwrap.indent("\n".join(lines), "    ") in README


def test_the_results_shown_are_those_of_both_searches_with_seed_1():
    summaries = [summary(strategy) for strategy in study.SCRIPTS]
    ranking = report.best_first(summaries[1]["trials"], OBJECTIVE)
    assert shown(report.trials_table(ranking, OBJECTIVE))
    assert shown(line.rstrip() for line in comparison.comparison_table(summaries))
    assert shown(report.result_lines(summaries[0]))


def test_the_first_table_has_what_was_published_and_the_mean_of_three_searches():
    rows = [line for line in MEASURED["published"].splitlines() if line.startswith("|")]
    assert rows and all(row in README for row in rows)
    test, minutes = mean_of_three("test_accuracy"), mean_of_three("seconds") / 60
    assert f"one network (mean of seeds 1, 2, 3) | {test:.4f} | {minutes:.0f} min |" in README
    assert f"best four trials together | {mean_of_three('best_four_test_accuracy'):.4f} |" in README


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
    for name in "test_accuracy", "best_four_test_accuracy":  # the means in the first table
        measured += f"{mean_of_three(name):.4f} "
    accuracies = set(re.findall(r"\b0\.\d{4}\b", README))
    assert len(accuracies) > 5 and accuracies <= set(re.findall(r"\b0\.\d{4}\b", measured))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 170 and len(README.split()) <= 1500
