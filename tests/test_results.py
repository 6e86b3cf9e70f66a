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
from tuning import figures
from tuning.command_line import Parser
from tuning.display import duration
from tuning.report import compare, elapsed_seconds, importance, report, write_csv
from tuning.tuner import BayesianOptimization, RandomSearch

MAX, MIN = kt.Objective("val_accuracy", "max"), kt.Objective("val_loss", "min")
HP = kt.HyperParameters()
common.CNN().build(HP)


def record(trial, score, proposed_by="random"):
    """A trial of three epochs, the second of them its best; a failed one where the score is None."""
    values = {"units": 64 * trial, "dropout": 0.3, "learning_rate": 0.000256123 * trial}
    values["optimizer"] = "adam" if trial % 2 else "rmsprop"
    own = {"trial": trial, "proposed_by": proposed_by, "hyperparameters": values, "score": score, "seconds": 61.5}
    if score is None:
        own |= {"status": "FAILED", "best_epoch": None, "epochs": 1, "message": "ValueError: too big"}
        return own | {"curves": {"val_accuracy": [0.5]}}
    own |= {"status": "COMPLETED", "best_epoch": 2, "epochs": 3, "message": None}
    return own | {"curves": {"val_accuracy": [score - 0.2, score, score - 0.1]}}


RECORDS = [
    record(1, 0.81), record(2, 0.93), record(3, None), record(4, 0.92, "surrogate"), record(5, 0.94, "surrogate")
]  # fmt: skip


class TwoTrialsOnly(common.CNN):
    trained = 0

    def fit(self, hp, model, *args, **kwargs):
        if self.trained == 2:
            raise ValueError("no more")
        self.trained += 1
        return super().fit(hp, model, *args, **kwargs)


def search(results_dir, script=RANDOM, *options):
    """Searches in a folder, or opens what is there, and reports it."""
    options = "--max-trials", 3, "--workers", 1, "--batch-size", 32, "--results-dir", results_dir, *options
    args = Parser("").parse_args([*map(str, options)])
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
def folder(tmp_path_factory):
    """The folder of a search with two completed trials and a failed one, which nobody changes."""
    results_dir = tmp_path_factory.mktemp("searched")
    search(results_dir)
    return results_dir / FOLDERS[RANDOM]


@pytest.fixture(scope="module")
def models(folder):
    """The two models of that search, by the names of their files."""
    return {name: keras.models.load_model(folder / f"{name}.keras") for name in ("best_model", "best_four")}


def test_the_last_lines_are_the_result_and_every_file_is_written(folder, tmp_path, capsys):
    folder = shutil.copytree(folder, tmp_path / FOLDERS[RANDOM])
    for path in [*folder.glob("*.*")]:
        if path.name != "settings.json":
            path.unlink()
    search(tmp_path)
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
        rf"Total elapsed time: {duration(stored['elapsed_seconds'])}\n",
        output,
    )
    assert str(folder) in output
    assert "\x1b" not in output
    pictures = {"search.png", "confusion_matrix.png", "mistakes.png"}
    for name in pictures:
        with Image.open(folder / name) as picture:
            assert picture.width == 900 and np.ptp(np.asarray(picture)) == 255
    made = {"settings.json", "summary.json", "trials.csv", "best_model.keras", "best_four.keras", "lock", "processes"}
    assert {path.name for path in folder.iterdir()} == made | pictures | {"trial_1", "trial_2", "trial_3"}
    assert not any((folder / "processes").iterdir())
    assert [len([*path.iterdir()]) for path in folder.glob("trial_*")] == [2, 2, 2]


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
        # All digits, or importance() would not find a value among those of a choice.
        proposed = json.loads((folder / f"trial_{trial['trial']}" / "trial.json").read_text())["proposed"]
        assert trial["hyperparameters"] == proposed
    assert failed["score"] is None and failed["message"] == "ValueError: no more"
    assert "Traceback" in json.loads((folder / "trial_3" / "trial.json").read_text())["message"]
    assert stored["settings"]["batch_size"] == 32 and stored["strategy"] == "random search"
    assert stored["settings"]["keras"] == keras.__version__ and re.match(r"\d+ CPU core|.*GPU", stored["hardware"])


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
        "import sys, keras, numpy as np\ndata = np.load(sys.argv[1])\nfor path in sys.argv[2:]:\n"
        "    for images in data['images'], data['images'].astype('float32'):\n"
        "        predicted = keras.models.load_model(path).predict(images, verbose=0).argmax(1)\n"
        "        print((predicted == data['labels']).mean())"
    )
    paths = folder / "best_model.keras", folder / "best_four.keras"
    command = [sys.executable, "-I", "-c", code, tmp_path / "test.npz", *paths]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    stored = json.loads((folder / "summary.json").read_text())
    accuracies = [stored[key]["test_accuracy"] for key in ("best", "best_four") for _ in range(2)]
    assert min(accuracies) > 0.4  # far more than a guess
    assert [float(line) for line in process.stdout.split()] == pytest.approx(accuracies), process.stderr
    assert "Warning" not in process.stderr


def test_both_strategies_are_shown_side_by_side_whichever_was_first(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / FOLDERS[RANDOM])
    search(tmp_path, BAYESIAN)
    outputs = [capsys.readouterr().out]
    (tmp_path / "comparison.png").unlink()
    search(tmp_path)
    outputs.append(capsys.readouterr().out)
    assert (tmp_path / "comparison.png").exists()
    lines = []
    for name in FOLDERS.values():
        each = json.loads((tmp_path / name / "summary.json").read_text())
        best = each["best"]
        values = f"validation accuracy {best['val_accuracy']:.4f}, test accuracy {best['test_accuracy']:.4f}"
        time = duration(each["elapsed_seconds"])
        lines.append(f"{each['strategy']}, {len(each['trials'])} trials, {time}: {values}\n")
    assert all("".join(sorted(lines)) in output for output in outputs)


def test_a_damaged_summary_or_one_of_another_problem_is_not_compared(folder, tmp_path, capsys):
    mine = json.loads((folder / "summary.json").read_text())
    theirs = mine | {"strategy": "Bayesian optimization"}
    older = {name: theirs[name] for name in theirs if name != "objective"}
    other_space = theirs | {"settings": mine["settings"] | {"search space of units": "Int(64, 1024)"}}
    others = older, other_space, theirs | {"settings": mine["settings"] | {"objective": "val_loss"}}
    contents = [b"", b"[]", b"\xff\x00", *(json.dumps(each).encode() for each in others)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "summary.json").write_bytes(content)
    assert compare(tmp_path / "mine", mine) == {mine["strategy"]: mine} and capsys.readouterr().out == ""
    (tmp_path / "0" / "summary.json").write_text(json.dumps(theirs))
    assert compare(tmp_path / "mine", mine).keys() == {mine["strategy"], theirs["strategy"]}


def test_csv_holds_every_trial_with_all_digits(tmp_path):
    write_csv(tmp_path / "trials.csv", RECORDS)
    with open(tmp_path / "trials.csv", newline="") as file:
        for row, stored in zip(csv.DictReader(file), RECORDS, strict=True):
            values = stored | stored["hyperparameters"]
            del values["curves"], values["hyperparameters"]
            assert row == {name: "" if value is None else str(value) for name, value in values.items()}


def test_what_mattered_most_is_named_only_where_it_can_be_told_from_chance(capsys):
    drawn = [{hp.name: hp.random_sample(seed) for hp in HP.space} for seed in range(40)]
    scores = {"units": [each["units"] / 600 for each in drawn], "cannot be told": np.random.default_rng(1).random(40)}
    for told, each in scores.items():
        records = [{"hyperparameters": values, "score": score} for values, score in zip(drawn, each)]
        searches = [{"trials": records[:20]}, {"trials": [*records[20:], records[0] | {"score": None}]}]
        found = importance(searches, HP.space)
        line = capsys.readouterr().out
        assert re.match(rf"What mattered most: {told}\b.*, from 40 trials \(p = {found['p']:.3f}\)\n$", line), line
        assert found["trials"] == 40 and (found["p"] <= 0.05) == (told == "units")
    assert importance([{"trials": records[:4]}], HP.space) == {}  # too few


def test_total_elapsed_time_is_how_long_at_least_one_trial_ran():
    intervals = [(10, 20), (15, 30), (16, 18), (40, 45), (45, 50)]
    records = [{"started": start, "seconds": end - start} for start, end in reversed(intervals)]
    assert elapsed_seconds(records) == 20 + 10


def test_a_search_s_picture_shows_each_score_by_number_and_hyperparameter_the_best_so_far_and_learning_curves():
    figure = figures.search(RECORDS, RECORDS[4], MAX, HP.space)
    axes = {ax.get_xlabel(): ax for ax in figure.axes}
    assert list(axes) == ["trial", "units", "dropout", "learning rate", "optimizer", "epoch"]
    assert figure.get_supylabel() == "validation accuracy"
    names = {"trial": None} | {hp.name.replace("_", " "): hp.name for hp in HP.space}
    for label, name in names.items():
        x = [each["hyperparameters"][name] if name else each["trial"] for each in RECORDS]
        if name == "optimizer":  # a category's number is the order in which it came
            x = [["adam", "rmsprop"].index(value) for value in x]
        drawn = [(each.get_label(), *each.get_offsets().tolist()) for each in axes[label].collections]
        assert drawn[:2] == [("random", [x[0], 0.81]), ("random", [x[1], 0.93])]
        assert drawn[2:4] == [("surrogate", [x[3], 0.92]), ("surrogate", [x[4], 0.94])]
        assert drawn[4:] == [("best", [x[4], 0.94])]
        random, _, surrogate, *_ = axes[label].collections
    assert [ax.get_xscale() == "log" for ax in axes.values()] == [False, False, False, True, False, False]
    assert [text.get_text() for text in axes["optimizer"].get_xticklabels()] == ["adam", "rmsprop"]
    assert axes["trial"].get_ylim()[0] > 0.7
    assert random.get_facecolor().tolist() != surrogate.get_facecolor().tolist()
    assert random.get_paths()[0].vertices.shape != surrogate.get_paths()[0].vertices.shape  # markers

    trial, *_, epoch = figure.axes
    assert_allclose(trial.lines[0].get_ydata(), [0.81, 0.93, 0.93, 0.93, 0.94])
    for line, stored in zip(epoch.lines, RECORDS, strict=True):
        assert_allclose(line.get_ydata(), stored["curves"]["val_accuracy"])
        assert line.get_xdata()[0] == 1
    assert epoch.lines[4].get_linewidth() > 2 * epoch.lines[0].get_linewidth()
    failed_first = [record(1, None), *RECORDS[1:]]  # leaves a gap
    (line,) = figures.search(failed_first, RECORDS[4], MAX, HP.space).axes[0].lines
    assert_allclose(line.get_ydata(), [np.nan, 0.93, 0.93, 0.93, 0.94])
    losses = [record(trial, loss) for trial, loss in ((1, 0.5), (2, 0.7), (3, 0.4))]
    (line,) = figures.search(losses, losses[2], MIN, HP.space).axes[0].lines
    assert_allclose(line.get_ydata(), [0.5, 0.5, 0.4])


def test_the_comparison_draws_both_searches_best_so_far():
    trials = {"random search": [0.9, 0.8, 0.93], "Bayesian optimization": [0.9, 0.92]}
    searches = {name: {"trials": [record(*each) for each in enumerate(scores, 1)]} for name, scores in trials.items()}
    (ax,) = figures.comparison(searches, MAX).axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.9, 0.9, 0.93], [0.9, 0.92]]
    assert [line.get_label() for line in ax.lines] == list(trials) and "validation accuracy" in ax.get_ylabel()


@pytest.mark.parametrize("targets, outputs", [
    ([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]),
    ([[0], [1], [1]], [[0.1], [0.8], [0.3]]),
    ([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])),
    ([0.0, 1.0, 1.0], np.log([[1 / 9], [4], [3 / 7]])),
], ids=["probabilities", "one probability", "logits", "one logit"])  # fmt: skip
def test_classes_are_read_from_whatever_a_classifier_has(targets, outputs):
    model = types.SimpleNamespace(predict=lambda images, **options: np.array(outputs))
    pictures = figures.errors(model, (np.zeros((3, 8, 8)), np.array(targets)), 32, ["even", "odd"])
    recalls = [label.get_text() for label in pictures["confusion_matrix"].axes[0].get_yticklabels()]
    assert recalls == ["even  100.0%", "odd  50.0%"]
    wrong, *others = pictures["mistakes"].axes
    assert wrong.get_title() == "odd\n→ even\n70.0%" and not any(ax.images for ax in others)


def test_an_image_classifier_s_errors_are_counted_by_classes_and_the_25_surest_are_shown(test_data, capsys):
    """Probabilities that are wrong about images 0 to 29 of 1,000, the later the surer."""
    images, labels, names, numbers = test_data[0], test_data[1].argmax(1), common.CLASS_NAMES, np.arange(1000)
    taken, confidence = np.where(numbers < 30, (labels + 1) % 10, labels), 0.6 + numbers / 3000
    probabilities = np.repeat((1 - confidence[:, None]) / 9, 10, axis=1)
    probabilities[numbers, taken] = confidence
    model = types.SimpleNamespace(predict=lambda images, **options: probabilities)
    pictures = figures.errors(model, test_data, 32, names)
    (ax,) = pictures["confusion_matrix"].axes
    counts = np.zeros((10, 10), int)
    for count in ax.texts:
        predicted, true = count.get_position()
        counts[true, predicted] = int(count.get_text() or 0)
    assert counts.sum() == 1000 and np.trace(counts) == 970
    for true in range(10):
        assert counts[true, true] == (labels[30:] == true).sum()
        assert counts[true, (true + 1) % 10] == (labels[:30] == true).sum()
    recalls = np.diagonal(counts) / counts.sum(axis=1)
    rows = [f"{name}  {recall:.1%}" for name, recall in zip(names, recalls)]
    assert [label.get_text() for label in ax.get_yticklabels()] == rows
    assert [label.get_text() for label in ax.get_xticklabels()] == list(names)
    assert ax.get_xlabel().startswith("predicted") and ax.get_ylabel().startswith("true")
    assert capsys.readouterr().out == f"Worst class: {names[recalls.argmin()]}, recall {recalls.min():.3f}\n"

    for ax, i in zip(pictures["mistakes"].axes, range(29, 4, -1), strict=True):
        assert (ax.images[0].get_array() == images[i]).all()
        assert ax.get_title() == f"{names[labels[i]]}\n→ {names[taken[i]]}\n{confidence[i]:.1%}"
    axes = figures.mistakes(images[27:], labels[27:], probabilities[27:], names).axes  # three are wrong
    assert [len(ax.images) for ax in axes] == [1] * 3 + [0] * 22
