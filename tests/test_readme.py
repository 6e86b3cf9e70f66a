"""What the README says was measured: its figures are those of the committed files in benchmarks/."""

import re
import statistics
import sys
import textwrap

import pytest
from conftest import ROOT
from numpy.testing import assert_allclose

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a workers.py of its own
import results
import study

README = (ROOT / "README.md").read_text()
SEARCHES, TRIALS = study.read(study.SEARCHES), study.read(study.TRIALS)


def summary(strategy):
    """What summary.json of the search with seed 1 held, as far as the tables need it."""
    search, = study.of(SEARCHES, strategy, 1)
    best = search | {"hyperparameters": search}
    trials = study.of(TRIALS, strategy, 1)
    return {"best": best, "trials": trials, "elapsed_seconds": search["seconds"], "settings": {}}


def shown(text):
    return textwrap.indent(text, "    ") in README


@pytest.mark.parametrize("strategy", study.SCRIPTS)
def test_the_outputs_shown_are_those_of_the_study_s_searches_with_seed_1(strategy):
    assert shown(results.trials_table(summary(strategy)["trials"]))
    assert shown(results.result_lines(summary(strategy)))


def test_the_searches_side_by_side_are_those_with_seed_1():
    lines = results.comparison_table({strategy: summary(strategy) for strategy in study.SCRIPTS}).splitlines()
    assert "\n".join(f"    {line}".rstrip() for line in lines) in README


@pytest.mark.parametrize("strategy, script", study.SCRIPTS.items())
def test_the_first_table_has_the_means_of_all_searches(strategy, script):
    searches = [row for row in SEARCHES if row["strategy"] == strategy]
    accuracy, seconds = (statistics.mean(row[name] for row in searches) for name in ("test_accuracy", "seconds"))
    assert f"| `{script}`, mean of {len(searches)} seeds | {accuracy:.4f} | {seconds / 60:.0f} min |" in README


def test_the_study_s_report_is_quoted_as_it_was_printed():
    assert study.report() in README and study.hyperparameters_table(TRIALS) in README


def test_what_is_said_of_the_learning_rate_holds_for_all_trials():
    low = max(trial["val_accuracy"] for trial in TRIALS if trial["learning_rate"] < 5e-4)
    high = min(trial["val_accuracy"] for trial in TRIALS if trial["learning_rate"] >= 2e-3)
    assert f"Below 5e-4 no trial gets beyond {low:.4f}, from 2e-3 on none is worse than {high:.4f}." in README


@pytest.mark.parametrize("name", ["published", "speed"])
def test_a_benchmark_s_table_is_quoted_as_it_was_printed(name):
    table = [line for line in (ROOT / "benchmarks" / f"{name}.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) > 2 and "\n".join(table) in README


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    measured += study.report() + study.hyperparameters_table(TRIALS)
    for row in (*SEARCHES, *TRIALS):
        measured += "".join(f"{value:.4f} " for value in row.values() if isinstance(value, float))
    for strategy in study.SCRIPTS:
        measured += f"{statistics.mean(row['test_accuracy'] for row in SEARCHES if row['strategy'] == strategy):.4f} "
    accuracies = set(re.findall(r"0\.\d{4}\b", README))
    assert len(accuracies) > 10 and accuracies <= set(re.findall(r"0\.\d{4}\b", measured))


def test_the_study_s_picture_shows_the_mean_over_the_seeds_that_both_strategies_have_searched():
    _, seeds = study.searched_by_both()
    ax, = study.progress_figure(TRIALS).axes
    for strategy, line in zip(study.SCRIPTS, ax.lines, strict=True):
        best = [max(trial["val_accuracy"] for trial in study.of(TRIALS, strategy, seed)) for seed in seeds]
        first = [study.of(TRIALS, strategy, seed)[0]["val_accuracy"] for seed in seeds]
        assert_allclose(line.get_ydata()[[0, -1]], [statistics.mean(first), statistics.mean(best)])
