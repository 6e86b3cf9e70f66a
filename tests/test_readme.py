"""What both READMEs say was measured: their figures are those of the committed files in benchmarks/."""

import re
import sys
import textwrap

import keras_tuner as kt
import pytest
from conftest import ROOT

from tuning import comparison, report

sys.path.append(str(ROOT / "benchmarks"))  # last: it has a workers.py of its own
import study

README, BENCHMARKS = ((ROOT / folder / "README.md").read_text() for folder in (".", "benchmarks"))
MEASURED = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.md") if path.stem != "README"}
SEARCHES, TRIALS = study.read(study.SEARCHES), study.read(study.TRIALS)
REPORT = study.report()
OBJECTIVE = kt.Objective("val_accuracy", "max")


def prose(text):
    return " ".join(text.split())


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


def cells(text, name):
    """The cells of a row of a Markdown table, without the one that names it."""
    return re.search(rf"^\| {name} \| (.*) \|$", text, re.MULTILINE)[1].split(" | ")


def means(name):
    """The means of both strategies over all searches, as the first table has them."""
    assert "of 5 seeds |" in REPORT["measures"]
    return " / ".join(cell.split()[0] for cell in cells(REPORT["measures"], name)[:2])


def speed(name):
    """The numbers in a row of speed.md: the reference, the same without the pause, one process, two workers."""
    return [float(cell) for cell in cells(MEASURED["speed"], name)]


def shown(lines):
    return textwrap.indent("\n".join(line.rstrip() for line in lines), "    ") in README


def test_the_results_shown_are_those_of_both_searches_with_seed_1():
    summaries = [summary(strategy) for strategy in study.SCRIPTS]
    for each in summaries:
        assert shown(report.trials_table(report.best_first(each["trials"], OBJECTIVE), OBJECTIVE))
        assert shown(report.result_lines(each))
    assert shown(comparison.comparison_table(summaries))


def test_the_first_table_has_what_was_published_and_what_was_measured():
    rows = [line for line in MEASURED["published"].splitlines() if line.startswith("|")]
    assert rows and all(row in README for row in rows)
    minutes, accuracies = [f"{seconds / 60:.0f} min" for seconds in speed("seconds per search")], speed("test accuracy")
    assert f"| a straightforward script, `benchmarks/reference.py` | {accuracies[0]:.4f} | {minutes[0]} |" in README
    assert f"one network | {means('test accuracy')} | {minutes[2]} |" in README
    assert f"the best four trials together | {means('test accuracy of the best four together')} |" in README


@pytest.mark.parametrize("figure, name, pattern", [
    (r"leads by (-?\d\.\d{4})", "measures", r"\| test accuracy \|.*\| \+?(-?\d\.\d{4}), "),
    (r"validation accuracy (0\.\d{4}), random", "process", r"mean validation accuracy is (0\.\d{4})"),
    (r"random (0\.\d{4})\)", "process", r"of the random ones (0\.\d{4})"),
    (r"learning rate alone explains (\d\d%)", "hyperparameters", r"\| learning rate \|.*\| (\d\d%) \|"),
    (r"rank correlation (0\.\d\d)", "short trials", r"correlation of (0\.\d\d)"),
    (r"together\*\* gain (0\.\d{4})", "best four", r"test images by (0\.\d{4})"),
])
def test_what_was_found_is_what_the_study_reports(figure, name, pattern):
    assert re.search(figure, prose(README))[1] == re.search(pattern, REPORT[name])[1]


def test_the_pause_is_what_the_speed_benchmark_reports():
    pause = re.search(r"So the pause is (\d+) s", MEASURED["speed"])[1]
    seconds = speed("seconds per search")[0]
    assert f"needs: {pause} of {seconds:.0f} seconds of the straightforward script" in prose(README)


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join([*MEASURED.values(), *REPORT.values()])
    for row in (*SEARCHES, *TRIALS):
        measured += "".join(f" {value:.4f}" for name, value in row.items() if name.endswith("accuracy") and value)
    for text in README, BENCHMARKS:
        accuracies = set(re.findall(r"\b0\.\d{4}\b", text))
        assert len(accuracies) > 5 and accuracies <= set(re.findall(r"\b0\.\d{4}\b", measured))


@pytest.mark.parametrize("name", REPORT)
def test_the_study_s_report_is_quoted_in_full(name):
    assert prose(REPORT[name]) in prose(BENCHMARKS)


@pytest.mark.parametrize("name, paragraphs", [
    ("speed", slice(1, None)),
    ("workers", slice(3, None)),
    ("pause", slice(1, 2)),
    ("tricks", slice(2, None)),
    ("memory", slice(2, None)),
])
def test_what_a_benchmark_has_printed_is_quoted(name, paragraphs):
    printed = MEASURED[name].strip().split("\n\n")
    assert "cores" in printed[0] and printed[paragraphs]
    assert all(prose(paragraph) in prose(BENCHMARKS) for paragraph in printed[paragraphs])


def test_the_seconds_of_an_epoch_are_those_measured():
    text = prose(BENCHMARKS)
    reference, without, ours, _ = cells(MEASURED["speed_quick"], "seconds per epoch")
    assert f"an epoch takes {ours} s, the reference's {reference} s ({without} s without the pause)" in text
    bfloat16, float32 = (
        [cells(MEASURED["precision"], f"{precision}, {threads} threads")[-1].split()[0] for threads in (1, 2)]
        for precision in ("mixed_bfloat16", "float32")
    )
    assert (
        f"in bfloat16 an epoch takes {bfloat16[0]} s with one thread for an operation and {bfloat16[1]} s with two, "
        f"in float32 {float32[0]} s and {float32[1]} s"
    ) in text


def test_both_are_short():
    assert len(README.splitlines()) <= 170 and len(README.split()) <= 1500
    assert len(BENCHMARKS.splitlines()) <= 150
