"""The READMEs' figures are those that were measured: they stand in the files beside the scripts that measured them."""

import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import study

BENCHMARKS = ROOT / "benchmarks"
README, EVIDENCE = ((folder / "README.md").read_text() for folder in (ROOT, BENCHMARKS))
MEASURES = "test_accuracy", "best_four_test_accuracy"
ACCURACY = re.compile(r"(?<![\d.])0\.9\d{3}(?!\d)")


def cells(text, name):
    """The cells after the first one in the line of a table that begins with this name."""
    return [cell.strip(" *") for cell in re.search(rf"^\| {re.escape(name)}[^|]*\|(.*)\|$", text, re.M)[1].split("|")]


def mean(strategy, measure):
    """The mean over the seeds of the study, with four digits."""
    values = [row[measure] for row in study.read(study.SEARCHES) if row["strategy"] == strategy]
    return f"{sum(values) / len(values):.4f}"


def test_the_table_of_results_is_what_was_measured():
    reports = [(BENCHMARKS / name).read_text() for name in ("speed.md", "speed_avx2.md")]
    seconds = [map(float, cells(report, "seconds of a whole search")) for report in reports]
    plain, ours = zip(*([f"{each / 60:.0f} min" for each in pair] for pair in seconds))
    published = (BENCHMARKS / "published.md").read_text()
    accuracy, time = (cell.split(" / ")[0] for cell in cells(published, "the project that this one follows"))
    assert cells(README, "the project that this one follows") == [accuracy, "", time, ""]
    assert cells(README, "a plain script") == [cells(reports[0], "test accuracy")[0], "", *plain]
    means = {strategy: [mean(strategy, each) for each in MEASURES] for strategy in study.SCRIPTS}
    assert cells(README, "random search") == [*means["random search"], *ours]
    assert cells(README, "Bayesian optimisation") == [*means["Bayesian optimization"], "", ""]


def test_the_study_s_report_is_that_of_its_rows():
    measures, chance, _, _ = study.tables()
    assert measures in EVIDENCE and chance in " ".join(EVIDENCE.split())


@pytest.mark.parametrize("text", [README, EVIDENCE], ids=["README.md", "benchmarks/README.md"])
def test_every_accuracy_stands_in_a_file_of_measurements(text):
    known = "".join(path.read_text() for path in BENCHMARKS.glob("*.md") if path.name != "README.md")
    known = {*ACCURACY.findall(known), *ACCURACY.findall("".join(study.tables()[:2]))}
    for row in study.read(study.SEARCHES):
        known |= {f"{value:.4f}" for value in row.values() if isinstance(value, float)}
    assert {*ACCURACY.findall(text)} <= known
