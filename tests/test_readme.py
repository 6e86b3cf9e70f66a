"""What the README says was measured: its figures are those of the committed files in benchmarks/."""

import re
import sys
import textwrap

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a workers.py of its own
import results
import study

README = (ROOT / "README.md").read_text()


def shown(text):
    return textwrap.indent(text, "    ") in README


@pytest.mark.parametrize("strategy", study.SCRIPTS)
def test_the_outputs_shown_are_those_of_the_study_s_searches_with_seed_1(strategy):
    search, = (row for row in study.read(study.SEARCHES) if (row["strategy"], row["seed"]) == (strategy, 1))
    trials = [row for row in study.read(study.TRIALS) if (row["strategy"], row["seed"]) == (strategy, 1)]
    assert shown(results.trials_table(trials))
    best = search | {"hyperparameters": search}
    assert shown(results.result_lines({"best": best, "trials": trials, "elapsed_seconds": search["seconds"]}))


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.md"))
    for search in study.read(study.SEARCHES):
        measured += "".join(f"{value:.4f} " for value in search.values() if isinstance(value, float))
    for trial in study.read(study.TRIALS):
        measured += f"{trial['val_accuracy']:.4f} "
    accuracies = set(re.findall(r"0\.\d{4}\b", README))
    assert len(accuracies) > 10 and accuracies <= set(re.findall(r"0\.\d{4}\b", measured))


@pytest.mark.parametrize("name", ["speed"])
def test_a_benchmark_s_table_is_quoted_as_it_was_printed(name):
    table = [line for line in (ROOT / "benchmarks" / f"{name}.md").read_text().splitlines() if line.startswith("|")]
    assert table and "\n".join(table) in README
