"""What a user finds after a search: files that say what happened, and models that work anywhere."""

import csv
import json
import re
import shutil
import subprocess
import sys

import tuning  # isort: skip (first: it sets up TensorFlow)

import common
import keras
import keras_tuner as kt
import numpy as np
import pytest
from conftest import FOLDERS, RANDOM, open_tuner
from numpy.testing import assert_allclose
from PIL import Image

from tuning import comparison, figures, report, text
from tuning.files import write_json

PICTURES = ("progress", "hyperparameters", "learning_curves", "confusion_matrix", "mistakes")
MAX = kt.Objective("val_accuracy", "max")
MIN = kt.Objective("val_loss", "min")
HP = kt.HyperParameters()
common.CNN().build(HP)


def record(trial, val_accuracy, proposed_by="random", **values):
    """A trial of three epochs, the second of them its best; a failed one where the accuracy is None."""
    failed = val_accuracy is None
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
        "val_accuracy": val_accuracy,
        "seconds": 61.5,
        "message": "ValueError: too big" if failed else None,
        "curves": {"val_accuracy": [0.5] if failed else [val_accuracy - 0.2, val_accuracy, val_accuracy - 0.1]},
    } | values


RECORDS = [
    record(1, 0.81), record(2, 0.93), record(3, None), record(4, 0.92, "surrogate"), record(5, 0.94, "surrogate")
]
BEST = RECORDS[4]


def summary(strategy="random search", val_accuracies=(0.8, 0.9), **changes):
    """What summary.json holds, as far as the side-by-side table reads it."""
    values = {"units": 480, "dropout": 0.3, "learning_rate": 0.000256123, "optimizer": "adam"}
    return {
        "strategy": strategy,
        "settings": {"epochs": 30, "seed": 1, "search space of units": "Int(64, 512)"},
        "objective": {"name": "val_accuracy", "direction": "max"},
        "best": {"trial": 2, "hyperparameters": values, "val_accuracy": 0.9328, "test_accuracy": 0.9265},
        "best_four": {"test_accuracy": 0.9311},
        "trials": [record(i, accuracy) for i, accuracy in enumerate(val_accuracies, start=1)],
        "elapsed_seconds": 723.4,
    } | changes


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


# --- A real search ----------------------------------------------------------------------------------------------------


class TwoTrialsOnly(common.CNN):
    def fit(self, hp, model, *args, **kwargs):
        if self.trained == 2:
            raise ValueError("no \x1b[31mmore")
        self.trained += 1
        return super().fit(hp, model, *args, **kwargs)

    trained = 0


def search(results_dir):
    """Searches in a folder, or opens what is there, and evaluates it; returns the tuner."""
    options = "--max-trials", 3, "--train-images", 1000, "--batch-size", 32, "--epochs", 5, "--precision", "float32"
    images, labels = common.load_test_data()
    train, validation = common.load_train_data(1000)
    with open_tuner(RANDOM, results_dir, *options, hypermodel=TwoTrialsOnly()) as tuner:
        tuner.search(*train, validation_data=validation, epochs=5, batch_size=32, verbose=0)  # as KerasTuner's guides
        tuning.evaluate(tuner, images[:1000], labels[:1000], common.CLASS_NAMES)
    return tuner


@pytest.fixture(scope="module")
def test_data():
    images, labels = common.load_test_data()
    return images[:1000], labels[:1000]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The results folder of a search with two completed trials and a failed one."""
    results_dir = tmp_path_factory.mktemp("searched")
    search(results_dir)
    return results_dir


@pytest.fixture(scope="module")
def folder(searched):
    """The folder of that search, which nobody changes."""
    return searched / FOLDERS[RANDOM]


@pytest.fixture
def tuner(searched, tmp_path, capsys):
    """The stored search, opened anew in a folder of its own."""
    shutil.copytree(searched, tmp_path / "copy")
    return search(tmp_path / "copy")


def test_the_last_lines_are_the_result_and_every_file_is_written(tuner, capsys):
    project, output = tuner.project.folder, capsys.readouterr().out
    stored = json.loads((project / "summary.json").read_text())
    best, together = stored["best"], stored["best_four"]
    assert re.search(
        r"\n\nBest hyperparameters:\n"
        r"  units: \d+\n  dropout: 0\.\d\n  learning_rate: 0\.0\d+\n  optimizer: (adam|rmsprop)\n"
        rf"Best validation accuracy: {best['val_accuracy']:.4f} \(trial {best['trial']} of 3\)\n"
        rf"Test accuracy: {best['test_accuracy']:.4f}\n"
        rf"Best 2 together: test accuracy {together['test_accuracy']:.4f}, "
        rf"validation accuracy {together['val_accuracy']:.4f}\n"
        rf"Total elapsed time: {text.duration(stored['elapsed_seconds'])}\n$",
        output,
    )
    assert str(project) in output
    assert "\x1b" not in output and "no ?[31mmore" in output
    for name in PICTURES:
        with Image.open(project / f"{name}.png") as picture:
            assert picture.width == 900 and np.ptp(np.asarray(picture)) == 255
    assert not list(project.glob("*draft*"))


def test_summary_tells_how_the_result_came_about(folder, test_data):
    stored = json.loads((folder / "summary.json").read_text())
    data = {"test": test_data, "val": common.load_train_data(1000)[1]}
    for name, model in (("best", "best_model.keras"), ("best_four", "best_four.keras")):
        for prefix, examples in data.items():
            loss, accuracy = keras.models.load_model(folder / model).evaluate(*examples, batch_size=1000, verbose=0)
            assert stored[name][f"{prefix}_accuracy"] == pytest.approx(accuracy)
            assert stored[name][f"{prefix}_loss"] == pytest.approx(loss, rel=1e-4)
    best, (*completed, failed) = stored["best"], stored["trials"]
    first = completed[best["trial"] - 1]
    assert best["hyperparameters"] == first["hyperparameters"]
    assert best["val_accuracy"] == pytest.approx(max(trial["val_accuracy"] for trial in completed))
    assert first["curves"]["val_accuracy"][first["best_epoch"] - 1] == first["val_accuracy"]
    assert sorted(stored["best_four"]["trials"]) == [1, 2]
    for trial in completed:
        assert trial["val_accuracy"] == max(trial["curves"]["val_accuracy"])
        assert trial["epochs"] == 5 and trial["proposed_by"] == "random"
        assert trial["hyperparameters"]["dropout"] == round(trial["hyperparameters"]["dropout"], 1)
    assert failed["val_accuracy"] is None and failed["message"] == "ValueError: no ?[31mmore"
    assert stored["seconds_in_fit"] == pytest.approx(sum(trial["seconds"] for trial in completed))
    assert stored["settings"]["train_images"] == 1000 and stored["settings"]["seed"] == 1
    assert stored["strategy"] == "random search"
    assert set(stored["versions"]) == {"python", "tensorflow", "keras", "keras_tuner", "numpy"}
    assert stored["hardware"]["cores"] >= 1 and stored["hardware"]["cpu"]


def test_best_four_is_the_mean_of_the_best_trials_probabilities(tuner, test_data):
    one, other = (model.predict(test_data[0], verbose=0) for model in tuner.get_best_models(2))
    together = keras.models.load_model(tuner.project.folder / "best_four.keras").predict(test_data[0], verbose=0)
    assert not np.allclose(one, other, rtol=1e-2)
    assert_allclose(together, (one + other) / 2, rtol=1e-4)


def test_a_search_without_a_completed_trial_says_why(tuner, test_data):
    for trial in tuner.oracle.best_trials():
        tuner.oracle.forget(trial.trial_id)
    with pytest.raises(tuning.SearchFailed, match="no .*more"):
        tuning.evaluate(tuner, *test_data)


@pytest.mark.parametrize("name, key", [("best_model", "best"), ("best_four", "best_four")])
def test_a_model_works_in_a_process_without_this_project(folder, test_data, tmp_path, name, key):
    np.savez(tmp_path / "test.npz", images=test_data[0], labels=test_data[1])
    code = (
        "import sys, keras, numpy as np\n"
        "model, data = keras.models.load_model(sys.argv[1]), np.load(sys.argv[2])\n"
        "for dtype in 'uint8', 'float32':\n"
        "    print((model.predict(data['images'].astype(dtype), verbose=0).argmax(1) == data['labels']).mean())"
    )
    command = [sys.executable, "-I", "-c", code, folder / f"{name}.keras", tmp_path / "test.npz"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    accuracy = json.loads((folder / "summary.json").read_text())[key]["test_accuracy"]
    assert accuracy > 0.4  # far more than a guess
    assert [float(line) for line in process.stdout.split()] == [pytest.approx(accuracy)] * 2, process.stderr
    assert "Warning" not in process.stderr


@pytest.mark.parametrize("name", ["best_model", "best_four"])
def test_a_model_s_file_holds_weights_and_nothing_that_only_training_needs(folder, name):
    path = folder / f"{name}.keras"
    weights = sum(weight.numpy().nbytes for weight in keras.models.load_model(path).weights)
    assert weights <= path.stat().st_size < 1.1 * weights + 100_000


# --- Tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective, order", [(MAX, [2, 3, 1, 4]), (MIN, [1, 3, 2, 4])])
def test_trials_are_ranked_best_first_and_even_the_worst_before_a_failed_one(objective, order):
    values = {1: 0.0, 2: 0.5, 3: 0.1, 4: None}
    records = [{"trial": trial, objective.name: value} for trial, value in values.items()]
    assert [each["trial"] for each in report.best_first(records, objective)] == order


def test_csv_holds_every_trial_with_all_digits(tmp_path):
    report.write_csv(tmp_path / "trials.csv", RECORDS)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, stored in zip(rows, RECORDS, strict=True):
        values = stored | stored["hyperparameters"]
        del values["curves"], values["hyperparameters"]
        assert row == {name: "" if value is None else str(value) for name, value in values.items()}


def test_table_of_trials_is_aligned_and_followed_by_why_trials_failed():
    header, *rows, reason = report.trials_table(RECORDS, MAX)
    columns = "trial units dropout learning rate optimizer epochs val accuracy seconds proposed by"
    assert header.split() == columns.split()
    assert rows[1].split() == "2 128 0.3 0.000512 rmsprop 2/3 0.9300 62 random".split()
    assert rows[2].split() == "3 192 0.3 0.000768 adam -/1 failed 62 random".split()
    assert {len(row) for row in rows} == {len(header)}
    assert reason == "Trial 3 failed: ValueError: too big"


def test_table_of_a_random_search_does_not_say_who_proposed():
    assert report.trials_table(RECORDS[:2], MAX)[0].endswith("seconds")


@pytest.mark.parametrize("name, value, hint", [
    ("units", 512, "units, 512, is at the upper end of its range: a wider one, to 768"),
    ("units", 64, "units, 64, is at the lower end of its range: a wider one, to 4"),
    ("units", 480, None),
    ("dropout", 0.1, "dropout, 0.1, is at the lower end of its range: a wider one, to 0.0667"),
    ("dropout", 0.5, "dropout, 0.5, is at the upper end of its range: a wider one, to 0.75"),
    ("dropout", 0.4, None),
    ("learning_rate", 0.0099, "learning_rate, 0.0099, is at the upper end of its range: a wider one, to 0.1"),
    ("learning_rate", 0.000101, "learning_rate, 0.000101, is at the lower end of its range: a wider one, to 1e-05"),
    ("learning_rate", 0.007, None),
    ("optimizer", "adam", None),
])
def test_a_best_value_at_an_end_of_its_range_gets_a_hint(name, value, hint):
    hp, = (hp for hp in HP.space if hp.name == name)
    lines = report.edge_hints(hp, value)
    assert lines == [] if hint is None else (len(lines) == 1 and hint in lines[0])


def test_no_hint_names_a_narrower_range():
    hp = kt.HyperParameters()
    hp.Float("shift", -10, 10)
    assert report.edge_hints(hp.space[0], -10.0) == []


# --- Side by side -----------------------------------------------------------------------------------------------------


def test_side_by_side_names_the_settings_that_differ_but_not_those_of_one_strategy():
    random = summary()
    other = summary("Bayesian optimization", settings=random["settings"] | {"epochs": 5, "initial_points": 4})
    lines = comparison.comparison_table([random, other])
    assert lines[-1] == "The settings differ: epochs (30, 5)"
    assert [re.split("  +", line)[::2] for line in lines[:-1]] == [
        ["", "Bayesian optimization"],
        ["best validation accuracy", "0.9328"],
        ["test accuracy", "0.9265"],
        ["test accuracy, best four together", "0.9311"],
        ["units", "480"],
        ["dropout", "0.3"],
        ["learning_rate", "0.000256"],
        ["optimizer", "adam"],
        ["best trial", "2"],
        ["total trials", "2"],
        ["total elapsed time", "0h 12m 03s"],
    ]
    same = summary("Bayesian optimization", settings=random["settings"] | {"initial_points": 4})
    assert "differ" not in comparison.comparison_table([random, same])[-1]


@pytest.fixture
def folders(tmp_path):
    """The folders of a random and of a Bayesian search."""
    for name in FOLDERS.values():
        (tmp_path / name).mkdir()
    return [tmp_path / name for name in FOLDERS.values()]


def test_the_other_strategy_s_result_is_shown_and_drawn_whichever_was_first(folders, tmp_path, capsys):
    searches = list(zip(folders, (summary(), summary("Bayesian optimization"))))
    for (mine, my_summary), (other, other_summary) in (searches, reversed(searches)):
        write_json(other / "summary.json", other_summary)
        comparison.compare(mine, my_summary)
        assert re.split("  +", capsys.readouterr().out.splitlines()[1]) == [
            "", "random search", "Bayesian optimization"
        ]
        (other / "summary.json").unlink()
        (tmp_path / "comparison.png").unlink()


BAYESIAN_SUMMARY = summary("Bayesian optimization")


@pytest.mark.parametrize("content", [
    None, b"", b"[]", b"\xff\x00", json.dumps(BAYESIAN_SUMMARY).encode(),  # without its checksum
    {name: value for name, value in BAYESIAN_SUMMARY.items() if name != "objective"},  # of the first version
    BAYESIAN_SUMMARY | {"objective": {"name": "val_loss", "direction": "min"}},
    BAYESIAN_SUMMARY | {"settings": {"search space of units": "Int(64, 1024)"}},
])
def test_a_damaged_summary_or_one_of_another_problem_is_not_shown(folders, tmp_path, capsys, content):
    random, bayesian = folders
    if isinstance(content, bytes):
        (bayesian / "summary.json").write_bytes(content)
    elif content:
        write_json(bayesian / "summary.json", content)
    comparison.compare(random, summary())
    assert capsys.readouterr().out == "" and not (tmp_path / "comparison.png").exists()


def test_text_from_files_can_not_command_the_terminal():
    other = summary("Bayesian\r optimization", settings=summary()["settings"] | {"epochs": "\x1b[2J"})
    other["best"]["hyperparameters"]["optimizer"] = "\x07adam\n"
    assert re.fullmatch(r"[ -~]+", "".join(comparison.comparison_table([summary(), other])))


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_progress_shows_each_trial_the_best_so_far_and_the_failures():
    ax, = figures.progress(RECORDS, MAX).axes
    random, surrogate, failed = ax.collections
    assert_allclose(ax.lines[0].get_ydata(), [0.81, 0.93, 0.93, 0.93, 0.94])
    assert points(random) == [[1, 0.81], [2, 0.93]]
    assert points(surrogate) == [[4, 0.92], [5, 0.94]]
    assert points(failed) == [[3, 0.04]] and ax.get_ylim()[0] > 0.7
    assert random.get_facecolor().tolist() != surrogate.get_facecolor().tolist()
    assert random.get_paths()[0].vertices.shape != surrogate.get_paths()[0].vertices.shape  # markers
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("trial", "validation accuracy")


def test_a_failed_first_trial_leaves_a_gap_in_the_best_so_far():
    records = [record(1, None), *RECORDS[1:]]
    assert_allclose(figures.best_so_far(records, MAX), [np.nan, 0.93, 0.93, 0.93, 0.94])


def test_the_best_so_far_of_a_loss_is_the_lowest():
    records = [record(trial, 0.9, val_loss=loss) for trial, loss in ((1, 0.5), (2, 0.7), (3, 0.4))]
    assert_allclose(figures.best_so_far(records, MIN), [0.5, 0.5, 0.4])


def test_hyperparameters_are_drawn_one_by_one_with_a_ring_around_the_best():
    axes = figures.hyperparameters(RECORDS, BEST, MAX, HP.space).axes
    for ax, name in zip(axes, ("units", "dropout", "learning_rate", "optimizer"), strict=True):
        values = [each["hyperparameters"][name] for each in RECORDS]
        if name == "optimizer":
            values = ["adam", "rmsprop"].index(values[0]), 1, None, 1, 0
        assert points(ax.collections[0]) == [[values[0], 0.81], [values[1], 0.93]]
        assert points(ax.collections[1]) == [[values[3], 0.92], [values[4], 0.94]]
        assert points(ax.collections[2]) == [[values[4], 0.94]]
    assert [ax.get_xscale() for ax in axes] == ["linear", "linear", "log", "linear"]
    assert [ax.get_xlabel() for ax in axes] == ["units", "dropout", "learning rate", "optimizer"]


def test_learning_curves_make_the_best_trial_stand_out():
    figure = figures.learning_curves(RECORDS, BEST, MAX)
    lines = figure.axes[0].lines
    for line, stored in zip(lines, RECORDS, strict=True):
        assert_allclose(line.get_ydata(), stored["curves"]["val_accuracy"])
        assert line.get_xdata()[0] == 1
    assert lines[4].get_linewidth() > 2 * lines[0].get_linewidth() and lines[4].get_markevery() == [1]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["other trials", "trial 5, the best: 0.9400 in epoch 2"]


@pytest.fixture
def predictions(test_data):
    """The labels of 1,000 test images and probabilities that are wrong about images 0 to 29, the later the surer."""
    labels = test_data[1]
    predicted = np.where(np.arange(1000) < 30, (labels + 1) % 10, labels)
    confidence = 0.6 + np.arange(1000) / 3000
    probabilities = np.repeat((1 - confidence[:, None]) / 9, 10, axis=1)
    probabilities[np.arange(1000), predicted] = confidence
    return labels, probabilities


def test_confusion_matrix_counts_every_image_in_a_text_that_stands_out(predictions):
    labels, probabilities = predictions
    ax, = figures.confusion_matrix(labels, probabilities, common.CLASS_NAMES).axes
    counts = np.zeros((10, 10), int)
    for count in ax.texts:
        predicted, true = count.get_position()
        counts[true, predicted] = int(count.get_text())
        assert count.get_color() == ("white" if true == predicted else "black")
    assert counts.sum() == 1000 and np.trace(counts) == 970
    for true in range(10):
        assert counts[true, true] == (labels[30:] == true).sum()
        assert counts[true, (true + 1) % 10] == (labels[:30] == true).sum()
    assert_allclose(ax.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(common.CLASS_NAMES)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(common.CLASS_NAMES)
    assert ax.get_xlabel().startswith("predicted") and ax.get_ylabel().startswith("true")


def test_mistakes_are_the_25_surest_with_truth_prediction_and_confidence(predictions, test_data):
    labels, probabilities = predictions
    axes = figures.mistakes(test_data[0], labels, probabilities, common.CLASS_NAMES).axes
    assert len(axes) == 25
    for ax, i in zip(axes, range(29, 4, -1)):
        assert (ax.images[0].get_array() == test_data[0][i]).all()
        true, predicted = common.CLASS_NAMES[labels[i]], common.CLASS_NAMES[(labels[i] + 1) % 10]
        assert ax.get_title() == f"{true}\n→ {predicted}\n{probabilities[i].max():.1%}"


def test_fewer_mistakes_leave_places_empty(predictions, test_data):
    labels, probabilities = predictions
    axes = figures.mistakes(test_data[0][27:], labels[27:], probabilities[27:], common.CLASS_NAMES).axes
    assert [len(ax.images) for ax in axes] == [1] * 3 + [0] * 22


def test_comparison_draws_both_searches_best_so_far():
    trials = {"random search": [0.9, 0.8, 0.93], "Bayesian optimization": [0.9, 0.92]}
    searches = {strategy: summary(strategy, values)["trials"] for strategy, values in trials.items()}
    figure = figures.comparison(searches, MAX)
    random, bayesian = figure.axes[0].lines
    assert_allclose(random.get_ydata(), [0.9, 0.9, 0.93])
    assert_allclose(bayesian.get_ydata(), [0.9, 0.92])
    assert [label.get_text() for label in figure.legends[0].get_texts()] == list(trials)
