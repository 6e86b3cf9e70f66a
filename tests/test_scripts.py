"""The scripts as a person uses them: output, options, and what makes one search like another."""

import json
import math
import re
import shlex
import subprocess

import tuning  # isort: skip (first: it sets up TensorFlow)

import common
import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    BAYESIAN, FOLDERS, RANDOM, SMALL, TRIALS, assert_one_line, command, end_all_trials, end_trial, open_tuner, parser,
    trial_rows
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

both = pytest.mark.parametrize("script", FOLDERS)


def trials(folder, script):
    """The rows of trials.csv in the order of the trials, see trial_rows()."""
    return sorted(trial_rows(folder / "keras_tuner_results" / FOLDERS[script]), key=lambda row: int(row["trial"]))


def values(rows):
    return [[row[name] for name in ("units", "dropout", "learning_rate", "optimizer")] for row in rows]


# --- Output -----------------------------------------------------------------------------------------------------------


@both
def test_output_ends_with_the_result(reference, script):
    assert re.search(
        r"\n\n"
        r"Best hyperparameters:\n"
        r"  units: \d+\n"
        r"  dropout: 0\.\d\n"
        r"  learning_rate: 0\.\d+\n"
        r"  optimizer: (adam|rmsprop)\n"
        rf"Best validation accuracy: 0\.\d{{4}} \(trial \d of {TRIALS}\)\n"
        r"Test accuracy: 0\.\d{4}\n"
        r"Best 4 together: test accuracy 0\.\d{4}, validation accuracy 0\.\d{4}\n"
        r"Total elapsed time: 0h \d\dm \d\ds\n$",
        (reference(script) / "stdout.txt").read_text(),
    )


@both
def test_progress_tells_trial_epochs_best_and_what_is_left(reference, script):
    output = (reference(script) / "stdout.txt").read_text()
    for number, row in enumerate(trials(reference(script), script), start=1):
        name = f"Trial {number} of {TRIALS}"
        assert f"{name}: units {row['units']}, dropout {float(row['dropout']):.1f}, " in output
        assert f"{name}: val_accuracy {float(row['val_accuracy']):.4f} in epoch {row['best_epoch']}, 0h" in output
    assert len(re.findall(r"\d+s - .* accuracy: [\d.]+ .* val_accuracy: [\d.]+", output)) == 2 * TRIALS
    left = [int(number) for number in re.findall(r"Trials left: (\d), about 0h", output)]
    assert left == list(range(TRIALS - 1, 0, -1))
    best_so_far = [float(score) for score in re.findall(r"Best so far: (0\.\d{4}), trial", output)]
    assert best_so_far == sorted(best_so_far) and len(best_so_far) == TRIALS


@both
def test_output_into_a_file_has_no_noise_and_no_control_characters(reference, script):
    assert (reference(script) / "stderr.txt").read_text() == ""
    assert re.sub(r"[ -~\n]", "", (reference(script) / "stdout.txt").read_text()) == ""


@both
def test_help_comes_with_closed_streams_as_well(script):
    shell = f"{shlex.join(command(script, '--help'))} <&- 2>&-"
    process = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0 and process.stdout.startswith(f"usage: {script} ")
    assert ("--initial-points N" in process.stdout) == (script == BAYESIAN)


# --- A trial ----------------------------------------------------------------------------------------------------------


def test_a_trial_trains_at_most_so_many_epochs(reference):
    assert [row["epochs"] for row in trials(reference(RANDOM), RANDOM)] == ["2"] * TRIALS


@pytest.mark.slow
def test_a_trial_ends_after_so_many_epochs_without_gain_and_its_best_epoch_is_its_score(run, tmp_path):
    process = run(RANDOM, *SMALL, "--max-trials", "2", "--epochs", "30", "--patience", "1")
    assert process.returncode == 0, process.stderr
    project = tmp_path / "keras_tuner_results" / FOLDERS[RANDOM]
    records = json.loads((project / "summary.json").read_text())["trials"]
    for record in records:
        curve = record["curves"]["val_accuracy"]
        assert record["val_accuracy"] == max(curve) and record["best_epoch"] == curve.index(max(curve)) + 1
        assert record["epochs"] == len(curve) == min(record["best_epoch"] + 1, 30)
    assert min(record["epochs"] for record in records) < 30


@pytest.mark.parametrize("patience", [1, 4])
def test_a_trial_that_learns_nothing_ends_after_one_epoch_and_the_patience(patience):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(1e-9, use_ema=True), "sparse_categorical_crossentropy", metrics=["accuracy"])
    train, validation = common.load_train_data(400)
    history = common.CNN().fit(
        kt.HyperParameters(), model, *train, validation_data=validation, epochs=30, batch_size=128,
        callbacks=[common.early_stopping(patience)], verbose=0,
    )
    assert len(history.epoch) == 1 + patience


@pytest.mark.slow
def test_tensorboard_gets_each_trial_s_learning_curves_and_hyperparameters(run, tmp_path):
    process = run(RANDOM, *SMALL, "--max-trials", "2", "--tensorboard")
    assert (process.returncode, process.stderr) == (0, "")
    project = tmp_path / "keras_tuner_results" / FOLDERS[RANDOM]
    for number, row in enumerate(trials(tmp_path, RANDOM)):
        paths = project.glob(f"tensorboard/{number}/**/events*")
        accumulators = {path.parent: EventAccumulator(str(path)) for path in paths}
        for accumulator in accumulators.values():
            accumulator.Reload()
        accuracies, = (
            [tf.make_ndarray(event.tensor_proto).item() for event in accumulator.Tensors("epoch_accuracy")]
            for path, accumulator in accumulators.items() if path.name == "validation"
        )
        assert len(accuracies) == 2 and max(accuracies) == pytest.approx(float(row["val_accuracy"]))
        content, = (
            accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            for accumulator in accumulators.values()
            if "_hparams_/session_start_info" in accumulator.Tags()["tensors"]
        )
        stored = HParamsPluginData.FromString(content).session_start_info.hparams
        assert stored["learning_rate"].number_value == pytest.approx(float(row["learning_rate"]))
        assert stored["optimizer"].string_value == row["optimizer"]


# --- The two strategies -----------------------------------------------------------------------------------------------


def test_hyperparameters_lie_in_the_search_space():
    hp = kt.HyperParameters()
    common.CNN().build(hp)
    units, dropout, learning_rate, optimizer = hp.space
    assert list(units.values) == list(range(64, 513, 32))
    assert [round(value, 6) for value in dropout.values] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert (learning_rate.min_value, learning_rate.max_value, learning_rate.sampling) == (1e-4, 1e-2, "log")
    assert optimizer.values == ["adam", "rmsprop"]


def test_both_strategies_start_from_the_same_four_trials_with_the_same_scores(reference):
    random, bayesian = (trials(reference(script), script) for script in (RANDOM, BAYESIAN))
    assert random[:4] == bayesian[:4]
    assert [row["proposed_by"] for row in random] == ["random"] * TRIALS
    assert [row["proposed_by"] for row in bayesian] == ["random"] * 4 + ["surrogate"] * (TRIALS - 4)
    assert values(random)[4] != values(bayesian)[4]


def tried(ended):
    return [tuple(trial.hyperparameters.values.values()) for trial in ended]


def test_random_search_with_seed_1_is_keras_tuner_s(tmp_path):
    with open_tuner(RANDOM, tmp_path, "--max-trials", 10) as tuner:
        ended = end_all_trials(tuner.oracle, lambda trial: 0.5)
    keras_tuner_s = kt.oracles.RandomSearchOracle(
        objective="val_accuracy", max_trials=10, seed=1, hyperparameters=tuner.oracle.get_space()
    )
    for trial in ended:
        assert trial.hyperparameters.values == keras_tuner_s.populate_space(trial.trial_id)["values"]


def test_searches_with_other_seeds_share_no_trial(tmp_path):
    everything = []
    for seed in range(1, 9):
        with open_tuner(RANDOM, tmp_path / str(seed), "--max-trials", 10, "--seed", seed) as tuner:
            everything += tried(end_all_trials(tuner.oracle, lambda trial: 0.5))
    assert len(set(everything)) == 80


def plausible(trial):
    """A score like that of a real trial: best with many units and a learning rate near 0.001."""
    units, dropout, learning_rate, optimizer = trial.hyperparameters.values.values()
    return 0.93 - 0.01 * math.log10(learning_rate / 1e-3) ** 2 - 0.02 / units - 0.01 * abs(dropout - 0.3) - (
        0.001 * (optimizer == "rmsprop")
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_from_the_fifth_trial_on_the_bayesian_search_learns_from_the_results(tmp_path, sign):
    with open_tuner(BAYESIAN, tmp_path, "--max-trials", 12) as tuner:
        ended = end_all_trials(tuner.oracle, lambda trial: sign * trial.hyperparameters.get("dropout"))
    dropouts = [trial.hyperparameters.get("dropout") for trial in ended]
    assert sign * np.mean(dropouts[4:]) > sign * 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_first_ten_trials_are_what_keras_tuner_s_process_proposes(tmp_path, seed):
    with open_tuner(BAYESIAN, tmp_path, "--max-trials", 10, "--seed", seed) as tuner:
        ended = end_all_trials(tuner.oracle, plausible)
    for number in range(4, 10):
        keras_tuner_s = kt.oracles.BayesianOptimizationOracle(
            objective="val_accuracy", max_trials=10, num_initial_points=4, seed=tuner.oracle.seeds(str(number))[1],
            hyperparameters=tuner.oracle.get_space(),
        )
        keras_tuner_s.trials = {trial.trial_id: trial for trial in ended[:number]}
        assert ended[number].hyperparameters.values == keras_tuner_s.populate_space(str(number))["values"]


@pytest.mark.parametrize("max_trials", [4, 5])
def test_a_bayesian_search_whose_trials_are_all_random_says_so(tmp_path, capsys, max_trials):
    with open_tuner(BAYESIAN, tmp_path, "--max-trials", max_trials):
        text = "All trials are random: the Gaussian process proposes from trial 5 on"
        assert (text in capsys.readouterr().out) == (max_trials == 4)


def best_in_a_corner(trial):
    """A score whose optimum KerasTuner's process proposes again and again: 11 of 40 trials would differ."""
    units, dropout, learning_rate, _ = trial.hyperparameters.values.values()
    return 0.9 + 0.01 * (units / 512 - dropout + math.log10(learning_rate))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_a_bayesian_search_never_tries_a_set_twice(tmp_path, workers):
    everything = []
    with open_tuner(BAYESIAN, tmp_path, "--max-trials", 40) as tuner:
        for _ in range(0, 40, workers):
            ongoing = [tuner.oracle.create_trial(f"tuner{number}") for number in range(workers)]
            everything += tried(ongoing)
            for trial in ongoing:
                end_trial(tuner.oracle, trial, best_in_a_corner(trial))
    assert len(set(everything)) == len(everything) == 40


class Three(kt.HyperModel):
    """A network of which there are three."""

    def build(self, hp):
        units = hp.Choice("units", [1, 2, 3])
        model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(units)])
        model.compile("sgd", "mse", metrics=["accuracy"])
        return model


@both
def test_a_search_space_that_is_used_up_ends_the_search(tmp_path, script):
    early = ("--initial-points", 1) if script == BAYESIAN else ()
    with open_tuner(script, tmp_path, "--max-trials", 10, *early, hypermodel=Three()) as tuner:
        ended = end_all_trials(tuner.oracle, lambda trial: trial.hyperparameters.get("units") / 10)
        assert sorted(tried(ended)) == [(1,), (2,), (3,)] and tuner.oracle.is_finished
    with open_tuner(script, tmp_path, "--max-trials", 11, *early, hypermodel=Three()) as tuner:
        assert end_all_trials(tuner.oracle, None) == []


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, named",
    [
        (["--max-trials", "0"], "--max-trials: must be a whole number of at least 1, not '0'"),
        (["--batch-size", "-5"], "--batch-size: must be a whole number of at least 1, not '-5'"),
        (["--epochs", "many"], "--epochs: must be a whole number of at least 1, not 'many'"),
        (["--patience", "0"], "--patience: must be"),
        (["--results-dir", ""], "--results-dir: must not be empty"),
        (["--results-dir", "~no_such_user/x"], "--results-dir: "),
        (["--workers", "0"], "--workers: must be"),
        (["--train-images", "48001"], "--train-images: must be a whole number from 4 to 48000, not '48001'"),
        (["--train-images", "3"], "--train-images: must be"),
        (["--seed", "0"], "--seed: must be a whole number from 1 to"),
        (["--precision", "float8"], "--precision: invalid choice: 'float8'"),
        (["--initial-points", "4"], "unrecognized arguments: --initial-points 4"),
        (["--max", "3"], "unrecognized arguments: --max 3"),
    ],
)
def test_a_bad_option_is_named(options, named):
    with pytest.raises(tuning.BadInput, match=re.escape(named)):
        parser(RANDOM).parse_args(options)


@pytest.mark.parametrize(
    "script, options, named",
    [
        (BAYESIAN, ["--initial-points", "0"], "--initial-points: must be"),
        (RANDOM, ["--results-dir", "a_file"], "--results-dir a_file: can't be written"),
    ],
)
def test_bad_input_gets_one_line_and_status_2_before_any_training(tmp_path, run, script, options, named):
    (tmp_path / "a_file").touch()
    process = run(script, *SMALL, *options)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith(f"{script}: ")
    assert_one_line(process.stderr, named)


def test_there_are_no_more_workers_than_trials(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(tuning.chief, "run", lambda oracle, folder, count, serve: started.append(count))
    with open_tuner(RANDOM, tmp_path, "--workers", 100) as tuner:
        tuner.search(validation_data=None)
    assert started == [TRIALS]


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / FOLDERS[RANDOM] / "search.pid").mkdir(parents=True)  # in the way of the first file to be written
    for folder in ("/proc/nowhere", tmp_path):
        with pytest.raises(tuning.BadInput, match=f"--results-dir {folder}: can't be written"):
            with open_tuner(RANDOM, folder):
                pass
