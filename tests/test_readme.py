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
PROSE = " ".join(README.split())
MEASURED = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.md")}
SEARCHES, TRIALS, REPORT = study.read(study.SEARCHES), study.read(study.TRIALS), study.report()


def summary(strategy):
    """What summary.json of the search with seed 1 held, as far as the tables need it."""
    search, = study.of(SEARCHES, strategy, 1)
    best = search | {"hyperparameters": search}
    trials = study.of(TRIALS, strategy, 1)
    return {"best": best, "trials": trials, "elapsed_seconds": search["seconds"], "settings": {}}


def shown(text):
    return textwrap.indent(text, "    ") in README


def cells(benchmark, row):
    """The cells of a row in a benchmark's table, without the row's name."""
    line, = (line for line in MEASURED[benchmark].splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


@pytest.mark.parametrize("strategy", study.SCRIPTS)
def test_the_outputs_shown_are_those_of_the_study_s_searches_with_seed_1(strategy):
    assert shown(results.trials_table(summary(strategy)["trials"]))
    assert shown(results.result_lines(summary(strategy)))


def test_the_searches_side_by_side_are_those_with_seed_1():
    lines = results.comparison_table({strategy: summary(strategy) for strategy in study.SCRIPTS}).splitlines()
    assert "\n".join(f"    {line}".rstrip() for line in lines) in README


def test_the_first_table_has_what_was_published_the_reference_and_the_means_of_all_searches():
    published = [line for line in MEASURED["published"].splitlines() if line.startswith("|")]
    seconds, accuracy = cells("speed", "seconds per search")[0], cells("speed", "best model's test accuracy")[0]
    row = f"| a straightforward random search, `benchmarks/reference.py` | {accuracy} | {float(seconds) / 60:.0f} min |"
    table = [*published, row]
    for strategy, script in study.SCRIPTS.items():
        searches = [row for row in SEARCHES if row["strategy"] == strategy]
        accuracy, seconds = (statistics.mean(row[name] for row in searches) for name in ("test_accuracy", "seconds"))
        table.append(f"| `{script}`, mean of {len(searches)} seeds | {accuracy:.4f} | {seconds / 60:.0f} min |")
    assert "\n".join(table) in README


@pytest.mark.parametrize("part", REPORT)
def test_the_study_s_report_is_quoted_as_it_was_printed(part):
    assert REPORT[part] in (README if REPORT[part].startswith("|") else PROSE)


def test_the_process_first_choice_is_as_good_as_is_said():
    ranks = []
    for seed in study.SEEDS:
        trials = study.of(TRIALS, "Bayesian optimization", seed)
        ranks.append([trial["trial"] for trial in results.best_first(trials)].index(5) + 1)
    assert sum(rank >= 9 for rank in ranks) == 3 and sum(rank <= 2 for rank in ranks) == 2
    assert "among the two worst trials of the search with three seeds, among the two best with the other two" in PROSE


def test_what_is_said_of_the_learning_rate_holds_for_all_trials():
    low = max(trial["val_accuracy"] for trial in TRIALS if trial["learning_rate"] < 5e-4)
    high = min(trial["val_accuracy"] for trial in TRIALS if trial["learning_rate"] >= 2e-3)
    assert f"Below 5e-4 no trial gets beyond {low:.4f}, from 2e-3 on none is worse than {high:.4f}." in PROSE


def test_adam_is_ahead_near_a_learning_rate_of_a_hundredth_and_level_below():
    trials = list(filter(study.is_good, study.distinct(TRIALS)))
    leads = []
    for near in (False, True):
        adam, rmsprop = (
            statistics.mean(
                trial["val_accuracy"]
                for trial in trials
                if (trial["learning_rate"] >= 0.009) == near and trial["optimizer"] == optimizer
            )
            for optimizer in study.OPTIMIZERS
        )
        leads.append(adam - rmsprop)
    assert abs(leads[0]) < 0.0005 and leads[1] > 0.002


def test_the_study_s_words_on_its_lead_agree_with_its_numbers():
    line, = (line for line in REPORT["measures"].splitlines() if line.startswith("| test accuracy"))
    lead, seeds = re.search(r"\+(0\.\d+),", line)[1], line.split("|")[-2].strip()
    assert lead == "0.0009" and "Bayesian optimisation's lead is nine of 10,000 test images" in PROSE
    assert f"{seeds} seeds would show it" in PROSE
    best = max(SEARCHES, key=lambda row: row["best_model_val_accuracy"])
    assert (
        f"({best['units']} units, dropout {best['dropout']}, learning rate {best['learning_rate']}, "
        f"{best['optimizer'].capitalize()})"
    ) in PROSE


def test_the_benchmarks_are_summed_up_with_their_own_figures():
    theirs, ours, ratio = cells("speed", "seconds per search")
    assert f"in {ours} s, the straightforward one" in PROSE and f"in {theirs} s, {ratio} times as long" in PROSE
    theirs, ours = cells("speed", "best model's test accuracy")[:2]
    assert f"test accuracy {ours} and {theirs}" in PROSE and f"reach {ours} where the straightforward" in PROSE
    theirs, ours = cells("speed", "peak memory, GB")[:2]
    assert f"peak memory {ours} GB and {theirs} GB" in PROSE
    float32, bfloat16 = (cells("precision", name)[-1] for name in ("float32", "mixed_bfloat16"))
    assert f"with bfloat16: {bfloat16} on the validation images, float32 {float32}" in PROSE
    growth, peak = re.search(r"Growth from trial 5 to 30: \+(.*%); peak (.* GB)", MEASURED["memory"]).groups()
    assert f"memory grows by {growth} from the fifth on; peak {peak}" in PROSE
    ratio, = re.findall(r"([\d.]+) times the trials per hour", MEASURED["workers"])
    chief, worker, _ = cells("workers", "2")[1].split(", ")
    assert f"does {ratio} times as many trials an hour" in PROSE
    assert f"peak {chief} GB and {worker} GB a worker" in PROSE
    one, two = cells("workers", "Bayesian optimization, seed 1")
    assert f"{two} with two workers and {one} with one" in PROSE


def test_every_accuracy_is_in_a_committed_measurement():
    measured = "".join(MEASURED.values()) + "".join(REPORT.values())
    for row in (*SEARCHES, *TRIALS):
        measured += "".join(f"{value:.4f} " for name, value in row.items() if name.endswith("accuracy") and value)
    for strategy in study.SCRIPTS:
        measured += f"{statistics.mean(row['test_accuracy'] for row in SEARCHES if row['strategy'] == strategy):.4f} "
    for text in (README, (ROOT / "common.py").read_text()):
        accuracies = set(re.findall(r"\b0\.\d{4}\b", text))
        assert len(accuracies) > 5 and accuracies <= set(re.findall(r"\b0\.\d{4}\b", measured))


def test_the_study_s_first_picture_shows_each_search_and_the_strategies_means():
    _, seeds = study.searched_by_both()
    ax, = study.progress_figure(TRIALS).axes
    lines = iter(ax.lines)
    for strategy in study.SCRIPTS:
        searches = [results.best_so_far(study.of(TRIALS, strategy, seed)) for seed in seeds]
        for search in searches:
            assert_allclose(next(lines).get_ydata(), search)
        mean = next(lines)
        assert_allclose(mean.get_ydata(), [statistics.mean(scores) for scores in zip(*searches)])
        assert mean.get_label().startswith(strategy)
    assert not list(lines)


def test_the_study_s_second_picture_shows_all_trials_by_learning_rate_and_the_good_ones_by_the_others():
    axes = dict(zip(("learning_rate", "dropout", "units", "optimizer"), study.hyperparameters_figure(TRIALS).axes))
    for name, ax in axes.items():
        trials = study.distinct(TRIALS)
        if name != "learning_rate":
            trials = [trial for trial in trials if trial["learning_rate"] >= 0.002]
        drawn = [y for points in ax.collections for _, y in points.get_offsets()]
        assert sorted(drawn) == sorted(trial["val_accuracy"] for trial in trials)
    x = [x for points in axes["learning_rate"].collections for x, _ in points.get_offsets()]
    assert sorted(x) == sorted(trial["learning_rate"] for trial in study.distinct(TRIALS))
