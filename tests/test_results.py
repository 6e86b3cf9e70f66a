"""What a user finds after a search: files that say what happened, and a best model that works anywhere."""

import csv
import json
import re
import shutil
import subprocess
import sys

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

import random_search_tuning
import results
import search
import storage

PICTURES = ("progress", "hyperparameters", "learning_curves", "confusion_matrix", "mistakes")


def record(trial, val_accuracy, proposed_by="random", **values):
    """A trial of three epochs, the second of them its best; a failed one where the accuracy is None."""
    failed = val_accuracy is None
    return {
        "trial": trial,
        "proposed_by": proposed_by,
        "status": "FAILED" if failed else "COMPLETED",
        "units": 64 * trial,
        "dropout": 0.3,
        "learning_rate": 0.000256123 * trial,
        "optimizer": "adam" if trial % 2 else "rmsprop",
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


def summary(val_accuracies=(0.8, 0.9), **changes):
    """What summary.json holds, as far as the side-by-side table reads it."""
    values = {"units": 480, "dropout": 0.3, "learning_rate": 0.000256123, "optimizer": "adam"}
    return {
        "settings": {"epochs": 30, "seed": 1},
        "best": {"trial": 2, "hyperparameters": values, "val_accuracy": 0.9328, "test_accuracy": 0.9265},
        "trials": [record(i, accuracy) for i, accuracy in enumerate(val_accuracies, start=1)],
        "elapsed_seconds": 723.4,
    } | changes


def points(collection):
    return np.asarray(collection.get_offsets()).tolist()


# --- A real search ----------------------------------------------------------------------------------------------------


class FirstTrialOnly(common.CNN):
    def fit(self, hp, model, *args, **kwargs):
        if self.trained:
            raise ValueError("no \x1b[31mmore")
        self.trained = True
        return super().fit(hp, model, *args, **kwargs)

    trained = False


def open_tuner(results_dir):
    arguments = ["--results-dir", str(results_dir), "--max-trials", "2", "--train-images", "1000",
                 "--batch-size", "32", "--epochs", "5", "--precision", "float32"]
    settings = common.argument_parser("").parse_args(arguments)
    settings.project = results_dir / "fashion_mnist_cnn_random_search"
    settings.project.mkdir(parents=True, exist_ok=True)
    storage.check_settings(settings)
    oracle = random_search_tuning.RandomSearch(
        objective="val_accuracy", max_trials=2, seed=1, hyperparameters=common.search_space()
    )
    return search.Tuner(oracle, FirstTrialOnly(settings), settings)


@pytest.fixture(scope="module")
def test_data():
    images, labels = common.load_test_data()
    return images[:1000], labels[:1000]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The results folder of a search with one completed and one failed trial."""
    results_dir = tmp_path_factory.mktemp("searched")
    finish(open_tuner(results_dir)).best_model()
    return results_dir


def finish(tuner):
    """Runs the trials that are left."""
    train, validation = common.load_train_data(1000)
    tuner.search(*train, validation_data=validation)
    return tuner


@pytest.fixture
def tuner(searched, tmp_path):
    """The stored search, opened anew in a folder of its own."""
    shutil.copytree(searched, tmp_path / "copy")
    return finish(open_tuner(tmp_path / "copy"))


def best_trial(tuner):
    return tuner.oracle.get_best_trials(1)[0]


def test_report_writes_every_file_and_ends_with_the_result(tuner, test_data, capsys):
    results.report(tuner, *test_data)
    project, output = tuner.settings.project, capsys.readouterr().out
    stored = json.loads((project / "summary.json").read_text())
    assert re.search(
        r"\n\nBest hyperparameters:\n"
        r"  units: \d+\n  dropout: 0\.\d\n  learning_rate: 0\.0\d+\n  optimizer: (adam|rmsprop)\n"
        rf"Best validation accuracy: {stored['best']['val_accuracy']:.4f} \(trial 1 of 2\)\n"
        rf"Test accuracy: {stored['best']['test_accuracy']:.4f}\n"
        rf"Total elapsed time: {search.duration(stored['elapsed_seconds'])}\n$",
        output,
    )
    assert str(project) in output
    assert "\x1b" not in output and "no ?[31mmore" in output
    for name in PICTURES:
        with Image.open(project / f"{name}.png") as picture:
            assert picture.width == 900 and np.ptp(np.asarray(picture)) == 255
    assert not list(project.glob("*draft*"))


def test_summary_tells_how_the_result_came_about(tuner, test_data):
    results.report(tuner, *test_data)
    images, labels = test_data
    stored = json.loads((tuner.settings.project / "summary.json").read_text())
    best, (completed, failed) = stored["best"], stored["trials"]
    model, training = tuner.best_model()
    loss, accuracy = model.evaluate(images, labels, batch_size=1000, verbose=0)
    assert best["test_accuracy"] == pytest.approx(accuracy) and best["test_loss"] == pytest.approx(loss, rel=1e-4)
    curves, best_epoch = completed["curves"], completed["best_epoch"]
    assert best["val_accuracy"] == max(curves["val_accuracy"]) == best_trial(tuner).score
    assert best["val_accuracy"] == curves["val_accuracy"][best_epoch - 1]
    assert best["val_loss"] == curves["val_loss"][best_epoch - 1]
    assert best["hyperparameters"]["dropout"] == round(best["hyperparameters"]["dropout"], 1)
    assert completed["epochs"] == 4 and completed["proposed_by"] == "random"
    assert failed["val_accuracy"] is None and failed["message"] == "ValueError: no ?[31mmore"
    assert stored["best_model_training"] == training and training["trial"] == 1
    loss, accuracy = model.evaluate(*common.load_train_data(1000)[1], batch_size=1000, verbose=0)
    assert training["val_accuracy"] == pytest.approx(accuracy) and training["val_loss"] == pytest.approx(loss)
    assert len(training["curves"]["val_accuracy"]) == 5
    assert stored["seconds_in_fit"] == pytest.approx(completed["seconds"] + training["seconds"])
    assert stored["settings"]["train_images"] == 1000 and stored["strategy"] == "random search" and stored["seed"] == 1
    assert set(training["versions"]) == {"python", "tensorflow", "keras", "keras_tuner", "numpy"}
    assert training["hardware"]["cores"] >= 1 and training["hardware"]["cpu"]


def test_report_of_a_search_without_a_completed_trial_says_so(tuner, test_data):
    tuner.oracle.trials.pop(best_trial(tuner).trial_id)
    with pytest.raises(common.SearchFailed, match="no .*more"):
        results.report(tuner, *test_data)


def test_best_model_works_in_a_process_that_knows_nothing_of_this_project(tuner, test_data, tmp_path):
    results.report(tuner, *test_data)
    project = tuner.settings.project
    np.savez(tmp_path / "test.npz", images=test_data[0], labels=test_data[1])
    code = (
        "import sys, keras, numpy as np\n"
        "model, data = keras.models.load_model(sys.argv[1]), np.load(sys.argv[2])\n"
        "for dtype in 'uint8', 'float32':\n"
        "    print((model.predict(data['images'].astype(dtype), verbose=0).argmax(1) == data['labels']).mean())"
    )
    command = [sys.executable, "-I", "-c", code, project / "best_model.keras", tmp_path / "test.npz"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    accuracy = json.loads((project / "summary.json").read_text())["best"]["test_accuracy"]
    assert accuracy > 0.5  # far more than a guess
    assert [float(line) for line in process.stdout.split()] == [accuracy, accuracy], process.stderr
    assert "Warning" not in process.stderr


def test_best_model_is_taken_from_its_file_while_that_is_the_best_trial_s(tuner, capsys):
    made, training = tuner.best_model()
    assert "trained" not in capsys.readouterr().out
    of_another_trial = common.average(common.build_ensemble(best_trial(tuner).hyperparameters, 1), "trial_7")
    of_another_trial.save(tuner.settings.project / "best_model.keras")
    again, training_again = tuner.best_model()
    assert "trained with the hyperparameters of trial 1" in capsys.readouterr().out
    for one, other in zip(again.weights, made.weights, strict=True):
        assert_allclose(one, other)
    assert training_again["val_accuracy"] == training["val_accuracy"]


def test_best_model_is_the_mean_of_its_networks_for_an_image_and_its_mirror_image(test_data):
    images = test_data[0][:100]
    keras.utils.set_random_seed(1)
    ensemble = common.build_ensemble(common.search_space(), 2)
    one, mirrored = (ensemble.predict(view, verbose=0) for view in (images, images[:, :, ::-1]))
    assert one.shape == (100, 2, 10) and not np.allclose(one[:, 0], one[:, 1], rtol=1e-2)
    expected = (one[:, 0] + one[:, 1] + mirrored[:, 0] + mirrored[:, 1]) / 4
    assert_allclose(common.average(ensemble, "mean").predict(images, verbose=0), expected, rtol=1e-4)


# --- Tables -----------------------------------------------------------------------------------------------------------


def test_best_first_puts_even_the_worst_trial_before_a_failed_one():
    records = [record(1, None), record(2, 0.0), record(3, 0.1)]
    assert [each["trial"] for each in results.best_first(records)] == [3, 2, 1]


def test_csv_holds_every_trial_with_all_digits_best_first(tmp_path):
    results.write_csv(tmp_path / "trials.csv", RECORDS)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["5", "2", "4", "1", "3"]
    for row in rows:
        stored = RECORDS[int(row["trial"]) - 1]
        assert row == {name: "" if stored[name] is None else str(stored[name]) for name in stored if name != "curves"}


def test_table_of_trials_is_aligned_best_first_failures_last_with_their_reason():
    header, *rows = results.trials_table(RECORDS).splitlines()
    assert [row.split()[0] for row in rows] == ["5", "2", "4", "1", "3"]
    assert rows[1].split() == "2 128 0.3 0.000512 rmsprop 2 of 3 0.9300 0h 01m 02s random".split()
    assert rows[-1].endswith("failed  0h 01m 02s       random  ValueError: too big")
    assert {len(row) for row in rows[:-1]} == {len(header)}
    assert header.endswith("proposed by")


def test_table_of_a_random_search_does_not_say_who_proposed():
    assert results.trials_table(RECORDS[:3]).splitlines()[0].endswith("time")


# --- Side by side -----------------------------------------------------------------------------------------------------


def test_side_by_side_names_the_settings_that_differ_but_not_the_initial_points():
    other = summary(settings={"epochs": 5, "seed": 1, "initial_points": 4})
    lines = results.comparison_table({"random search": summary(), "Bayesian optimization": other}).splitlines()
    assert lines[-1] == "The settings differ: epochs (30, 5)"
    assert [line.rsplit("  ", 1)[1].strip() for line in lines[:-1]] == [
        "Bayesian optimization", "0.9328", "0.9265", "480", "0.3", "0.000256", "adam", "2 of 2", "0h 12m 03s"
    ]
    same = summary(settings={"epochs": 30, "seed": 1, "initial_points": 4})
    assert "differ" not in results.comparison_table({"random search": summary(), "Bayesian optimization": same})


def folders(results_dir):
    for folder in results.STRATEGIES:
        (results_dir / folder).mkdir()
    return [results_dir / folder for folder in results.STRATEGIES]


def test_the_other_strategy_s_result_is_shown_and_drawn_whichever_was_first(tmp_path, capsys):
    random, bayesian = folders(tmp_path)
    for mine, other in ((random, bayesian), (bayesian, random)):
        storage.write_json(other / "summary.json", summary())
        results.compare(mine, summary())
        assert capsys.readouterr().out.splitlines()[1].split("  ")[-2:] == ["random search", "Bayesian optimization"]
        (other / "summary.json").unlink()
        (tmp_path / "comparison.png").unlink()


@pytest.mark.parametrize("content", [
    None, b"", b"[]", b"\xff\x00", json.dumps(summary()).encode(), summary(settings=[]),
    summary(elapsed_seconds=float("nan")), summary(trials=[{"trial": "a"}]), summary(best={}),
])
def test_a_damaged_or_foreign_summary_is_no_summary(tmp_path, capsys, content):
    random, bayesian = folders(tmp_path)
    if isinstance(content, bytes):
        (bayesian / "summary.json").write_bytes(content)
    elif content:
        storage.write_json(bayesian / "summary.json", content)
    results.compare(random, summary())
    assert capsys.readouterr().out == "" and not (tmp_path / "comparison.png").exists()


def test_text_from_files_can_not_command_the_terminal():
    other = summary(settings={"epochs": "\x1b[2J"})
    other["best"]["hyperparameters"]["optimizer"] = "\x07adam\n"
    assert re.fullmatch(r"[ -~\n]+", results.comparison_table({"a": summary(), "b": other}))


# --- Pictures ---------------------------------------------------------------------------------------------------------


def test_progress_shows_each_trial_the_best_so_far_and_the_failures():
    ax, = results.progress_figure(RECORDS).axes
    random, surrogate, failed = ax.collections
    assert_allclose(ax.lines[0].get_ydata(), [0.81, 0.93, 0.93, 0.93, 0.94])
    assert points(random) == [[1, 0.81], [2, 0.93]]
    assert points(surrogate) == [[4, 0.92], [5, 0.94]]
    assert points(failed) == [[3, 0.04]] and ax.get_ylim()[0] > 0.7
    assert random.get_facecolor().tolist() != surrogate.get_facecolor().tolist()
    assert random.get_paths()[0].vertices.shape != surrogate.get_paths()[0].vertices.shape  # markers
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("trial", "validation accuracy")


def test_a_failed_first_trial_leaves_a_gap_in_the_best_so_far():
    assert_allclose(results.best_so_far([record(1, None), *RECORDS[1:]]), [np.nan, 0.93, 0.93, 0.93, 0.94])


def test_hyperparameters_are_drawn_one_by_one_with_a_ring_around_the_best():
    axes = results.hyperparameters_figure(RECORDS).axes
    for ax, name in zip(axes, ("units", "dropout", "learning_rate")):
        assert points(ax.collections[0]) == [[RECORDS[0][name], 0.81], [RECORDS[1][name], 0.93]]
        assert points(ax.collections[1]) == [[RECORDS[3][name], 0.92], [RECORDS[4][name], 0.94]]
        assert points(ax.collections[2]) == [[RECORDS[4][name], 0.94]]
    assert points(axes[3].collections[0]) == [[0, 0.81], [1, 0.93]]
    assert [ax.get_xscale() for ax in axes] == ["linear", "linear", "log", "linear"]
    assert [ax.get_xlabel() for ax in axes] == ["units of the dense layer", "dropout", "learning rate", "optimizer"]


def test_learning_curves_make_the_best_trial_stand_out():
    training = {"val_accuracy": 0.97, "curves": {"val_accuracy": [0.8, 0.9, 0.95, 0.96]}}
    figure = results.learning_curves_figure(RECORDS, training)
    *lines, final = figure.axes[0].lines
    assert final.get_ydata().tolist() == training["curves"]["val_accuracy"]
    assert final.get_xdata().tolist() == [1, 2, 3, 4]
    for line, stored in zip(lines, RECORDS, strict=True):
        assert_allclose(line.get_ydata(), stored["curves"]["val_accuracy"])
        assert line.get_xdata()[0] == 1
    assert lines[4].get_linewidth() > 2 * lines[0].get_linewidth() and lines[4].get_markevery() == [1]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "other trials",
        "trial 5, the best: 0.9400 in epoch 2",
        "best model, mean of its networks; together 0.9700",
    ]


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
    ax, = results.confusion_matrix_figure(labels, probabilities).axes
    counts = np.zeros((10, 10), int)
    for text in ax.texts:
        predicted, true = text.get_position()
        counts[true, predicted] = int(text.get_text())
        assert text.get_color() == ("white" if true == predicted else "black")
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
    axes = results.mistakes_figure(test_data[0], labels, probabilities).axes
    assert len(axes) == 25
    for ax, i in zip(axes, range(29, 4, -1)):
        assert (ax.images[0].get_array() == test_data[0][i]).all()
        true, predicted = common.CLASS_NAMES[labels[i]], common.CLASS_NAMES[(labels[i] + 1) % 10]
        assert ax.get_title() == f"{true}\n→ {predicted}\n{probabilities[i].max():.1%}"


def test_fewer_mistakes_leave_places_empty(predictions, test_data):
    labels, probabilities = predictions
    axes = results.mistakes_figure(test_data[0][27:], labels[27:], probabilities[27:]).axes
    assert [len(ax.images) for ax in axes] == [1] * 3 + [0] * 22


def test_comparison_draws_both_searches_best_so_far():
    both = {"random search": summary([0.9, 0.8, 0.93]), "Bayesian optimization": summary([0.9, 0.92])}
    figure = results.comparison_figure(both)
    random, bayesian = figure.axes[0].lines
    assert_allclose(random.get_ydata(), [0.9, 0.9, 0.93])
    assert_allclose(bayesian.get_ydata(), [0.9, 0.92])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(both)
