"""What a user finds after a search: files that say what happened, and models that work anywhere."""

import csv
import json
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import BAYESIAN, FOLDERS, RANDOM
from numpy.testing import assert_allclose
from PIL import Image

from tuning.environment import keras, kt  # isort: skip (first: it sets up TensorFlow)

import common
from tuning import figures, tables
from tuning.command_line import Parser
from tuning.folder import write_json
from tuning.report import elapsed_seconds, report
from tuning.tuner import BayesianOptimization, RandomSearch

PICTURES = ("progress", "hyperparameters", "learning_curves", "confusion_matrix", "mistakes")
MAX = kt.Objective("val_accuracy", "max")
MIN = kt.Objective("val_loss", "min")
HP = kt.HyperParameters()
common.CNN().build(HP)


def record(trial, score, proposed_by="random"):
    """A trial of three epochs, the second of them its best; a failed one where the score is None."""
    failed = score is None
    return {
        "trial": trial,
        "proposed_by": proposed_by,
        "status": "FAILED" if failed else "COMPLETED",
        "hyperparameters": {
            "units": 64 * trial,
            "dropout": 0.3,
            "learning_rate": 0.000256123 * trial,
            "optimizer": "adam" if trial % 2 else "rmsprop",
        },
        "best_epoch": None if failed else 2,
        "epochs": 1 if failed else 3,
        "score": score,
        "seconds": 61.5,
        "message": "ValueError: too big" if failed else None,
        "curves": {"val_accuracy": [0.5] if failed else [score - 0.2, score, score - 0.1]},
    }


RECORDS = [
    record(1, 0.81), record(2, 0.93), record(3, None), record(4, 0.92, "surrogate"), record(5, 0.94, "surrogate")
]  # fmt: skip


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# --- A real search ----------------------------------------------------------------------------------------------------


class TwoTrialsOnly(common.CNN):
    trained = 0

    def fit(self, hp, model, *args, **kwargs):
        if self.trained == 2:
            raise ValueError("no \x1b[31mmore")
        self.trained += 1
        return super().fit(hp, model, *args, **kwargs)


def search(results_dir, script=RANDOM, *options):
    """Searches in a folder, or opens what is there, and reports it."""
    args = Parser("").parse_args(
        [*map(str, ("--max-trials", 3, "--workers", 1, "--batch-size", 32, "--results-dir", results_dir, *options))]
    )
    args.initial_points = 4
    strategy = {RANDOM: RandomSearch, BAYESIAN: BayesianOptimization}[script]
    train, validation = common.load_train_data(1000)
    tuner = strategy(TwoTrialsOnly(), "val_accuracy", FOLDERS[script], args)
    tuner.search(*train, validation_data=validation, epochs=5, batch_size=32, verbose=0)  # as KerasTuner's guides
    report(tuner, *(data[:1000] for data in common.load_test_data()), image_classes=common.CLASS_NAMES)


@pytest.fixture(scope="module")
def test_data():
    images, labels = common.load_test_data()
    return images[:1000], labels[:1000]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The results folder of a search with two completed trials and a failed one, which nobody changes."""
    results_dir = tmp_path_factory.mktemp("searched")
    search(results_dir)
    return results_dir


@pytest.fixture(scope="module")
def folder(searched):
    """The folder of that search."""
    return searched / FOLDERS[RANDOM]


@pytest.fixture(scope="module")
def models(folder):
    """The two models of that search, by the names of their files."""
    return {name: keras.models.load_model(folder / f"{name}.keras") for name in ("best_model", "best_four")}


def test_the_last_lines_are_the_result_and_every_file_is_written(searched, tmp_path, capsys):
    shutil.copytree(searched, tmp_path / "copy")
    folder = tmp_path / "copy" / FOLDERS[RANDOM]
    for path in [*folder.glob("*.*")]:
        if path.name != "settings.json":
            path.unlink()
    search(tmp_path / "copy")
    output = capsys.readouterr().out
    stored = json.loads((folder / "summary.json").read_text())
    best, together = stored["best"], stored["best_four"]
    assert re.search(
        r"\n\nBest hyperparameters:\n"
        r"  units: \d+\n  dropout: 0\.\d\n  learning_rate: 0\.0\d+\n  optimizer: (adam|rmsprop)\n"
        rf"Best validation accuracy: {best['val_accuracy']:.4f} \(trial {best['trial']} of 3\)\n"
        rf"Test accuracy: {best['test_accuracy']:.4f}\n"
        rf"Best 2 together: test accuracy {together['test_accuracy']:.4f}, "
        rf"validation accuracy {together['val_accuracy']:.4f}\n"
        rf"Total elapsed time: {tables.duration(stored['elapsed_seconds'])}\n",
        output,
    )
    assert str(folder) in output
    assert "\x1b" not in output and "no ?[31mmore" in output
    for name in PICTURES:
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width == 900 and np.ptp(np.asarray(picture)) == 255
    made = {"settings.json", "summary.json", "trials.csv", "best_model.keras", "best_four.keras", "lock"}
    trials = {path.name for path in folder.glob("trial_*")}
    assert {path.name for path in folder.iterdir()} - trials - {f"{name}.png" for name in PICTURES} - {
        "processes"
    } == made
    assert not any((folder / "processes").iterdir())
    assert len(trials) == 3 and [len([*path.iterdir()]) for path in folder.glob("trial_*")] == [2, 2, 2]


def test_summary_tells_how_the_result_came_about(folder, test_data, models):
    stored = json.loads((folder / "summary.json").read_text())
    for name, key in (("best_model", "best"), ("best_four", "best_four")):
        for prefix, examples in (("test", test_data), ("val", common.load_train_data(1000)[1])):
            loss, accuracy = models[name].evaluate(*examples, batch_size=32, verbose=0)
            assert stored[key][f"{prefix}_loss"] == pytest.approx(loss, rel=1e-4)
            assert stored[key][f"{prefix}_accuracy"] == pytest.approx(accuracy, abs=0.01)
    best, (*completed, failed) = stored["best"], stored["trials"]
    first = completed[best["trial"] - 1]
    assert best["hyperparameters"] == first["hyperparameters"]
    assert best["val_accuracy"] == max(trial["score"] for trial in completed)
    for trial in completed:
        curve = trial["curves"]["val_accuracy"]
        assert trial["score"] == max(curve) == curve[trial["best_epoch"] - 1]
        assert trial["epochs"] == 5 and trial["proposed_by"] == "random"
        assert trial["hyperparameters"]["dropout"] == round(trial["hyperparameters"]["dropout"], 1)
    assert failed["score"] is None and failed["message"] == "ValueError: no ?[31mmore"
    assert "Traceback" in next(folder.glob("trial_3/run_*/error.txt")).read_text()
    assert stored["settings"]["batch_size"] == 32 and stored["strategy"] == "random search"
    assert stored["versions"]["keras"] == keras.__version__ and stored["hardware"]["cores"] >= 1


def test_best_four_is_the_mean_of_the_best_trials_probabilities(folder, test_data, models):
    single = []
    for number in 1, 2:
        stored = json.loads((folder / f"trial_{number}" / "trial.json").read_text())
        model = common.CNN().build(kt.HyperParameters.from_config(stored["hyperparameters"]))
        model.load_weights(next(folder.glob(f"trial_{number}/run_*/checkpoint.weights.h5")))
        single.append(model.predict(test_data[0], verbose=0))
    assert not np.allclose(*single, rtol=1e-2)
    weights = sum(weight.numpy().nbytes for weight in models["best_model"].weights)
    assert (folder / "best_model.keras").stat().st_size < 1.1 * weights + 100_000  # nothing that only training needs
    assert_allclose(models["best_four"].predict(test_data[0], verbose=0), np.mean(single, axis=0), rtol=1e-4)


def test_a_model_works_in_a_process_without_this_project(folder, test_data, tmp_path):
    np.savez(tmp_path / "test.npz", images=test_data[0], labels=test_data[1].argmax(1))
    code = (
        "import sys, keras, numpy as np\n"
        "data = np.load(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    model = keras.models.load_model(path)\n"
        "    for dtype in 'uint8', 'float32':\n"
        "        print((model.predict(data['images'].astype(dtype), verbose=0).argmax(1) == data['labels']).mean())"
    )
    paths = folder / "best_model.keras", folder / "best_four.keras"
    command = [sys.executable, "-I", "-c", code, tmp_path / "test.npz", *paths]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    stored = json.loads((folder / "summary.json").read_text())
    accuracies = [stored[key]["test_accuracy"] for key in ("best", "best_four") for _ in range(2)]
    assert min(accuracies) > 0.4  # far more than a guess
    assert [float(line) for line in process.stdout.split()] == pytest.approx(accuracies), process.stderr
    assert "Warning" not in process.stderr


def test_both_strategies_are_shown_side_by_side_whichever_was_first(searched, tmp_path, capsys):
    shutil.copytree(searched, tmp_path / "copy")
    search(tmp_path / "copy", BAYESIAN, "--epochs", 5)
    tables_shown = [capsys.readouterr().out]
    (tmp_path / "copy" / "comparison.png").unlink()
    search(tmp_path / "copy")
    tables_shown.append(capsys.readouterr().out)
    assert (tmp_path / "copy" / "comparison.png").exists()
    found = [output[output.index(" random search ") :].splitlines()[:11] for output in tables_shown]
    assert found[0] == found[1]
    cells = {line.split("  ")[0].strip(): re.split("  +", line)[1:] for line in found[0]}
    summaries = [json.loads((tmp_path / "copy" / name / "summary.json").read_text()) for name in FOLDERS.values()]
    best = [each["best"] for each in summaries]
    assert found[0][0].split() == ["random", "search", "Bayesian", "optimization"]
    for name in "val_accuracy", "test_accuracy":
        for key in "best", "best_four":
            row = f"{key.replace('_', ' ')}: {tables.spelled(name)}"
            assert cells[row] == [f"{each[key][name]:.4f}" for each in summaries]
    assert cells["best: learning rate"] == [f"{each['hyperparameters']['learning_rate']:.3g}" for each in best]
    assert cells["elapsed time"] == [tables.duration(each["elapsed_seconds"]) for each in summaries]
    assert all("The settings differ: epochs (30, 5)\n" in output for output in tables_shown)


@pytest.mark.parametrize("other", [
    None, b"", b"[]", b"\xff\x00", lambda summary: {name: summary[name] for name in summary if name != "objective"},
    lambda summary: summary | {"objective": {"name": "val_loss", "direction": "min"}},
    lambda summary: summary | {"settings": {"search space of units": "Int(64, 1024)"}},
], ids=["none", "empty", "a list", "no text", "of another version", "objective", "space"])  # fmt: skip
def test_a_damaged_summary_or_one_of_another_problem_is_not_compared(folder, tmp_path, capsys, other):
    mine = json.loads((folder / "summary.json").read_text())
    (tmp_path / "other").mkdir()
    if isinstance(other, bytes):
        (tmp_path / "other" / "summary.json").write_bytes(other)
    elif other:
        write_json(tmp_path / "other" / "summary.json", other(mine | {"strategy": "Bayesian optimization"}))
    tables.print_comparison(tmp_path / "mine", mine)
    assert capsys.readouterr().out == ""


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_csv_holds_every_trial_with_all_digits(tmp_path):
    tables.write_csv(tmp_path / "trials.csv", RECORDS)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, stored in zip(rows, RECORDS, strict=True):
        values = stored | stored["hyperparameters"]
        del values["curves"], values["hyperparameters"]
        assert row == {name: "" if value is None else str(value) for name, value in values.items()}


def test_total_elapsed_time_is_how_long_at_least_one_trial_ran():
    intervals = [(10, 20), (15, 30), (16, 18), (40, 45), (45, 50)]
    trials = [types.SimpleNamespace(started=start, ended=end) for start, end in reversed(intervals)]
    assert elapsed_seconds(trials) == 20 + 10


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_progress_shows_each_trial_and_the_best_so_far():
    figure = figures.progress({"best so far": RECORDS}, MAX)
    (ax,) = figure.axes
    (best,) = ax.lines
    random, surrogate = ax.collections
    assert_allclose(best.get_ydata(), [0.81, 0.93, 0.93, 0.93, 0.94])
    assert points(random) == [[1, 0.81], [2, 0.93]]
    assert points(surrogate) == [[4, 0.92], [5, 0.94]]
    assert ax.get_ylim()[0] > 0.7
    assert random.get_facecolor().tolist() != surrogate.get_facecolor().tolist()
    assert random.get_paths()[0].vertices.shape != surrogate.get_paths()[0].vertices.shape  # markers
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("trial", "validation accuracy")
    assert legend(figure)[0] == "best so far" and len(legend(figure)) >= 3


def test_a_failed_first_trial_leaves_a_gap_in_the_best_so_far_and_a_loss_s_best_is_the_lowest():
    lines = figures.progress({"best so far": [record(1, None), *RECORDS[1:]]}, MAX).axes[0].lines
    assert_allclose(lines[0].get_ydata(), [np.nan, 0.93, 0.93, 0.93, 0.94])
    losses = [record(trial, loss) for trial, loss in ((1, 0.5), (2, 0.7), (3, 0.4))]
    assert_allclose(figures.progress({"best so far": losses}, MIN).axes[0].lines[0].get_ydata(), [0.5, 0.5, 0.4])


def test_the_comparison_draws_both_searches_best_so_far():
    trials = {"random search": [0.9, 0.8, 0.93], "Bayesian optimization": [0.9, 0.92]}
    searches = {name: [record(i, score) for i, score in enumerate(scores, 1)] for name, scores in trials.items()}
    figure = figures.progress(searches, MAX)
    random, bayesian = figure.axes[0].lines
    assert_allclose(random.get_ydata(), [0.9, 0.9, 0.93])
    assert_allclose(bayesian.get_ydata(), [0.9, 0.92])
    assert legend(figure) == list(trials)


def test_hyperparameters_are_drawn_one_by_one_with_a_ring_around_the_best():
    axes = figures.hyperparameters(RECORDS, RECORDS[4], MAX, HP.space).axes
    for ax, name in zip(axes, ("units", "dropout", "learning_rate", "optimizer"), strict=True):
        values = [each["hyperparameters"][name] for each in RECORDS]
        if name == "optimizer":
            values = ["rmsprop", "adam"].index(values[1]), None, None, None, 1
            values = (1 - values[0], 0, None, 0, 1) if points(ax.collections[0])[0][0] else (0, 1, None, 1, 0)
        assert points(ax.collections[0]) == [[values[0], 0.81], [values[1], 0.93]]
        assert points(ax.collections[1]) == [[values[3], 0.92], [values[4], 0.94]]
        assert points(ax.collections[2]) == [[values[4], 0.94]]
    assert [ax.get_xscale() for ax in axes] == ["linear", "linear", "log", "linear"]
    assert [ax.get_xlabel() for ax in axes] == ["units", "dropout", "learning rate", "optimizer"]


def test_learning_curves_make_the_best_trial_stand_out():
    figure = figures.learning_curves(RECORDS, RECORDS[4], MAX)
    lines = figure.axes[0].lines
    for line, stored in zip(lines, RECORDS, strict=True):
        assert_allclose(line.get_ydata(), stored["curves"]["val_accuracy"])
        assert line.get_xdata()[0] == 1
    assert lines[4].get_linewidth() > 2 * lines[0].get_linewidth() and lines[4].get_markevery() == [1]
    assert "trial 5, the best" in legend(figure)[-1]


@pytest.mark.parametrize("targets, outputs", [
    ([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]),
    ([[0], [1], [1]], [[0.1], [0.8], [0.3]]),
    ([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])),
    ([0.0, 1.0, 1.0], np.log([[1 / 9], [4], [3 / 7]])),
], ids=["probabilities", "one probability", "logits", "one logit"])  # fmt: skip
def test_classes_are_read_from_whatever_a_classifier_has(targets, outputs):
    found, probabilities = figures.classes(targets, outputs)
    assert found.tolist() == [0, 1, 1]
    assert_allclose(probabilities, [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])


@pytest.fixture
def predictions(test_data):
    """The labels of 1,000 test images and probabilities that are wrong about images 0 to 29, the later the surer."""
    labels = test_data[1].argmax(1)
    predicted = np.where(np.arange(1000) < 30, (labels + 1) % 10, labels)
    confidence = 0.6 + np.arange(1000) / 3000
    probabilities = np.repeat((1 - confidence[:, None]) / 9, 10, axis=1)
    probabilities[np.arange(1000), predicted] = confidence
    return labels, probabilities


def test_confusion_matrix_counts_every_image(predictions):
    labels, probabilities = predictions
    (ax,) = figures.confusion_matrix(labels, probabilities, common.CLASS_NAMES).axes
    counts = np.zeros((10, 10), int)
    for count in ax.texts:
        predicted, true = count.get_position()
        counts[true, predicted] = int(count.get_text() or 0)
    assert counts.sum() == 1000 and np.trace(counts) == 970
    for true in range(10):
        assert counts[true, true] == (labels[30:] == true).sum()
        assert counts[true, (true + 1) % 10] == (labels[:30] == true).sum()
    for axis in ax.get_xticklabels(), ax.get_yticklabels():
        assert [label.get_text() for label in axis] == list(common.CLASS_NAMES)
    assert ax.get_xlabel().startswith("predicted") and ax.get_ylabel().startswith("true")


def test_mistakes_are_the_25_surest_with_truth_prediction_and_confidence(predictions, test_data):
    labels, probabilities = predictions
    axes = figures.mistakes(test_data[0], labels, probabilities, common.CLASS_NAMES).axes
    assert len(axes) == 25
    for ax, i in zip(axes, range(29, 4, -1), strict=True):
        assert (ax.images[0].get_array() == test_data[0][i]).all()
        true, predicted = common.CLASS_NAMES[labels[i]], common.CLASS_NAMES[(labels[i] + 1) % 10]
        assert ax.get_title() == f"{true}\n→ {predicted}\n{probabilities[i].max():.1%}"
    axes = figures.mistakes(test_data[0][27:], labels[27:], probabilities[27:], common.CLASS_NAMES).axes
    assert [len(ax.images) for ax in axes] == [1] * 3 + [0] * 22
