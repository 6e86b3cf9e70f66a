"""The scripts as a person uses them: options, output, data, and what makes one search like another."""

import functools
import gzip
import http.server
import os
import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from conftest import BAYESIAN, FOLDERS, RANDOM, SMALL, TRIALS, assert_one_line, command, read_until, trial_rows
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import bayesian_tuning
import random_search_tuning
import storage


def trials(folder, script):
    """The rows of trials.csv in the order of the trials, see trial_rows()."""
    return sorted(trial_rows(folder / "keras_tuner_results" / FOLDERS[script]), key=lambda row: int(row["trial"]))


def hyperparameters(rows):
    return [[row[name] for name in ("units", "dropout", "learning_rate", "optimizer")] for row in rows]


# --- Output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", FOLDERS)
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
        r"Total elapsed time: 0h \d\dm \d\ds\n$",
        (reference(script) / "stdout.txt").read_text(),
    )


@pytest.mark.parametrize("script", FOLDERS)
def test_progress_tells_trial_epochs_best_and_what_is_left(reference, script):
    output = (reference(script) / "stdout.txt").read_text()
    assert output.startswith("Precision: ")
    for number, row in enumerate(trials(reference(script), script), start=1):
        name = f"Trial {number} of {TRIALS}"
        assert f"{name}: units {row['units']}, dropout {float(row['dropout']):.1f}, " in output
        assert f"{name}: val_accuracy {float(row['val_accuracy']):.4f} in epoch {row['best_epoch']}, 0h" in output
    epochs = re.findall(r"\d+s - .* accuracy: [\d.]+ .* val_accuracy: [\d.]+", output)
    assert len(epochs) == 2 * (TRIALS + 1)  # the best model's
    left = [int(number) for number in re.findall(r"Trials left: (\d), about 0h", output)]
    assert left == list(range(TRIALS - 1, 0, -1))
    best_so_far = [float(score) for score in re.findall(r"Best so far: (0\.\d{4}), trial", output)]
    assert best_so_far == sorted(best_so_far) and len(best_so_far) == TRIALS


@pytest.mark.parametrize("script", FOLDERS)
def test_output_into_a_file_has_no_noise_and_no_control_characters(reference, script):
    assert (reference(script) / "stderr.txt").read_text() == ""
    assert re.sub(r"[ -~\n]", "", (reference(script) / "stdout.txt").read_text()) == ""


def test_a_finished_search_needs_no_streams_to_print_to(reference, tmp_path):
    shutil.copytree(reference(RANDOM) / "keras_tuner_results", tmp_path / "keras_tuner_results")
    summary = tmp_path / "keras_tuner_results" / FOLDERS[RANDOM] / "summary.json"
    summary.unlink()
    shell = shlex.join(command(RANDOM, *SMALL)) + " >&- 2>&-"
    assert subprocess.run(shell, shell=True, cwd=tmp_path, timeout=300).returncode == 0
    assert summary.exists()


# --- The two strategies -----------------------------------------------------------------------------------------------


def test_hyperparameters_lie_in_the_search_space():
    units, dropout, learning_rate, optimizer = common.search_space().space
    assert list(units.values) == list(range(64, 513, 32))
    assert [round(value, 6) for value in dropout.values] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert (learning_rate.min_value, learning_rate.max_value, learning_rate.sampling) == (1e-4, 1e-2, "log")
    assert optimizer.values == ["adam", "rmsprop"]


def test_both_strategies_start_from_the_same_four_trials_with_the_same_scores(reference):
    random, bayesian = (trials(reference(script), script) for script in (RANDOM, BAYESIAN))
    assert random[:4] == bayesian[:4]
    assert [row["proposed_by"] for row in random] == ["random"] * TRIALS
    assert [row["proposed_by"] for row in bayesian] == ["random"] * 4 + ["surrogate"] * (TRIALS - 4)
    assert hyperparameters(random)[4] != hyperparameters(bayesian)[4]


def learned_dropouts(score):
    """The dropouts that a Bayesian search proposes in trials 5 to 12, where a trial's accuracy is score(dropout)."""
    oracle = bayesian_tuning.BayesianOptimization(
        objective="val_accuracy", max_trials=12, num_initial_points=4, seed=1, hyperparameters=common.search_space()
    )
    for number in range(12):
        space = oracle.get_space()
        space.values = oracle.populate_space(str(number))["values"]
        trial = kt.engine.trial.Trial(space, str(number), status="COMPLETED")
        trial.score = score(space.values["dropout"])
        oracle.trials[trial.trial_id] = trial
        assert oracle.is_random(trial) == (number < 4)
    return [trial.hyperparameters.get("dropout") for trial in oracle.trials.values()][4:]


def test_from_the_fifth_trial_on_the_bayesian_search_learns_from_the_results():
    low, high = learned_dropouts(lambda dropout: 1 - dropout), learned_dropouts(lambda dropout: dropout)
    assert np.mean(low) < 0.3 < np.mean(high)


def test_a_trial_at_work_elsewhere_is_expected_to_do_about_as_well_as_the_others():
    oracle = bayesian_tuning.BayesianOptimization(
        objective="val_accuracy", max_trials=10, num_initial_points=4, seed=1, hyperparameters=common.search_space()
    )
    for number in range(5):
        space = oracle.get_space()
        space.values = oracle.populate_space(str(number))["values"]
        oracle.trials[str(number)] = trial = kt.engine.trial.Trial(space, str(number), status="COMPLETED")
        trial.score = 0.9 + number / 1000
    trial.status, oracle.ongoing_trials = "RUNNING", {"tuner0": trial}
    oracle.gpr = oracle._make_gpr()  # as in a chief that has just been started again
    oracle.populate_space("5")
    at_work = [hp.value_to_prob(trial.hyperparameters.values[hp.name]) for hp in space.space]
    assert -oracle.gpr.predict([at_work])[0] == pytest.approx(0.9, abs=0.01)


def test_a_bayesian_search_whose_trials_are_all_random_says_so(start, reference):
    process = start(BAYESIAN, *SMALL, "--max-trials", "4")
    read_until(process, "All trials are random: the Gaussian process proposes from trial 5 on")
    assert "All trials" not in (reference(BAYESIAN) / "stdout.txt").read_text()


def ten_trials(oracle, seed):
    oracle = oracle(objective="val_accuracy", max_trials=10, seed=seed, hyperparameters=common.search_space())
    return [tuple(oracle.populate_space(str(number))["values"].values()) for number in range(10)]


def test_random_search_with_seed_1_is_keras_tuner_s():
    assert ten_trials(random_search_tuning.RandomSearch, 1) == ten_trials(kt.oracles.RandomSearchOracle, 1)


def test_searches_with_other_seeds_share_no_trial():
    tried = [trial for seed in range(1, 9) for trial in ten_trials(random_search_tuning.RandomSearch, seed)]
    assert len(set(tried)) == 80


def test_tensorboard_gets_each_trial_s_learning_curves_and_hyperparameters(start, tmp_path):
    process = start(RANDOM, *SMALL, "--max-trials", "2", "--tensorboard")
    read_until(process, "Best model: trained")
    process.kill()
    assert process.communicate()[1] == ""
    project = tmp_path / "keras_tuner_results" / FOLDERS[RANDOM]
    for number in range(2):
        trial = kt.engine.trial.Trial.load(str(project / f"trial_{number}" / "trial.json"))
        folder = project / "tensorboard" / str(number)
        accumulators = {path.parent: EventAccumulator(str(path)) for path in folder.rglob("events*")}
        for accumulator in accumulators.values():
            accumulator.Reload()
        accuracies, = (
            [tf.make_ndarray(event.tensor_proto).item() for event in accumulator.Tensors("epoch_accuracy")]
            for path, accumulator in accumulators.items() if path.name == "validation"
        )
        assert len(accuracies) == 2 and max(accuracies) == pytest.approx(trial.score)
        content, = (
            accumulator.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
            for accumulator in accumulators.values()
            if "_hparams_/session_start_info" in accumulator.Tags()["tensors"]
        )
        stored = HParamsPluginData.FromString(content).session_start_info.hparams
        assert stored["learning_rate"].number_value == pytest.approx(trial.hyperparameters.get("learning_rate"))
        assert stored["optimizer"].string_value == trial.hyperparameters.get("optimizer")


@pytest.mark.parametrize("patience", [1, 2])
def test_a_trial_ends_after_so_many_epochs_without_gain(patience):
    settings = common.argument_parser("").parse_args(["--patience", str(patience)])
    hp = common.search_space()
    hp.values["learning_rate"] = 0.0
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")])
    train, validation = common.load_train_data(400)
    history = common.CNN(settings).fit(
        hp, common.compiled(model, hp), *train, validation_data=validation, callbacks=[]
    )
    assert len(history.epoch) == 1 + patience < common.TRIAL_EPOCHS


def test_the_best_model_trains_for_12_of_at_most_30_epochs(monkeypatch):
    class Begun(Exception):
        pass

    def train(self, hp, model, images, labels, epochs, **kwargs):
        raise Begun(epochs)

    monkeypatch.setattr(common.CNN, "train", train)
    settings = common.argument_parser("").parse_args(["--precision", "float32"])
    train, validation = common.load_train_data(4)
    with pytest.raises(Begun, match="^12$"):
        common.CNN(settings).train_final(common.search_space(), *train, validation_data=validation)


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, named",
    [
        (["--max-trials", "0"], "--max-trials: must be a whole number of at least 1, not '0'"),
        (["--batch-size", "-5"], "--batch-size: must be a whole number from 1 to 48000, not '-5'"),
        (["--epochs", "many"], "--epochs: must be a whole number of at least 1, not 'many'"),
        (["--patience", "0"], "--patience: must be"),
        (["--results-dir", ""], "--results-dir: must not be empty"),
        (["--workers", "0"], "--workers: must be"),
        (["--train-images", "48001"], "--train-images: must be a whole number from 4 to 48000, not '48001'"),
        (["--train-images", "3"], "--train-images: must be"),
        (["--seed", "0"], "--seed: must be a whole number from 1 to"),
        (["--precision", "float8"], "--precision: invalid choice: 'float8'"),
        (["--initial-points", "4"], "unrecognized arguments: --initial-points 4"),
    ],
)
def test_a_bad_option_is_named(options, named):
    with pytest.raises(common.BadInput) as refusal:
        common.argument_parser("").parse_args(options)
    assert named in str(refusal.value)


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


def test_a_results_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "any" / "settings_draft.json").mkdir(parents=True)  # in the way of the first file to be written
    for folder in ("/proc/nowhere", tmp_path):
        settings = common.argument_parser("").parse_args(["--results-dir", str(folder)])
        with pytest.raises(common.BadInput, match=f"--results-dir {folder}: can't be written"):
            storage.open_project(settings, "any")


# --- Data -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path):
    """A Keras cache of its own with a copy of the four real files."""
    for name in common.SHA256:
        common.read_idx(name)  # downloads it where it is not there yet
    folder = Path("datasets") / "fashion-mnist"
    homes = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")), common.DEBIAN_HOME
    source = next(home / folder for home in homes if (home / folder / "train-images-idx3-ubyte.gz").exists())
    return Path(shutil.copytree(source, tmp_path / folder))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def alter(path):
    path.write_bytes(gzip.compress(bytes(100) + gzip.decompress(path.read_bytes())[100:], compresslevel=1))


@pytest.mark.parametrize("name, damage", [
    ("train-images-idx3-ubyte", truncate),
    ("train-labels-idx1-ubyte", alter),
    ("t10k-labels-idx1-ubyte", lambda path: path.write_bytes(b"")),
])
def test_damaged_data_are_named(cache, name, damage, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(cache.parents[1]))
    damage(cache / f"{name}.gz")
    with pytest.raises(common.SearchFailed, match=rf"{cache}/{name}\.gz is damaged or altered: delete it"):
        common.load_train_data(), common.load_test_data()


def test_damaged_test_data_end_a_search_in_one_line_before_any_training(cache, run):
    truncate(cache / "t10k-images-idx3-ubyte.gz")
    process = run(RANDOM, *SMALL, env=os.environ | {"KERAS_HOME": str(cache.parents[1])})
    assert process.returncode == 1 and "Trial" not in process.stdout
    assert_one_line(process.stderr, "damaged")


def test_without_data_and_internet_one_line_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(common, "DEBIAN_HOME", tmp_path / "no package")
    monkeypatch.setattr(common, "DATA_URL", "http://127.0.0.1:9/")  # where nobody listens
    with pytest.raises(common.SearchFailed) as failure:
        common.load_train_data()
    message = str(failure.value)
    assert "\n" not in message and "apt-get install dataset-fashion-mnist" in message
    assert str(tmp_path / "datasets" / "fashion-mnist") in message and "t10k-labels-idx1-ubyte.gz" in message


def test_a_download_is_put_into_the_cache_and_nothing_else(cache, tmp_path, monkeypatch):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=cache)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty"))
        monkeypatch.setattr(common, "DEBIAN_HOME", tmp_path / "no package")
        monkeypatch.setattr(common, "DATA_URL", f"http://127.0.0.1:{server.server_port}/")
        assert common.read_idx("t10k-labels-idx1-ubyte").shape == (10_000,)
        server.shutdown()
    assert [path.name for path in (tmp_path / "empty").rglob("*") if path.is_file()] == ["t10k-labels-idx1-ubyte.gz"]
    assert common.read_idx("t10k-labels-idx1-ubyte").shape == (10_000,)  # with no server


def test_training_and_validation_images_are_the_right_ones_and_never_overlap():
    (images, labels), (validation_images, validation_labels) = common.load_train_data()
    assert images.shape == (48000, 28, 28) and validation_images.shape == (12000, 28, 28)
    assert np.bincount(np.concatenate([labels, validation_labels])).tolist() == [6000] * 10
    (few, _), (few_validation, _) = common.load_train_data(400)
    assert np.array_equal(few, images[:400]) and np.array_equal(few_validation, validation_images[:100])


def test_the_real_file_format_is_read(tmp_path, monkeypatch):
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    content = bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes() + images.tobytes()
    path = tmp_path / "datasets" / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(common.SHA256, "t10k-images-idx3-ubyte", common.hashlib.sha256(content).hexdigest())
    assert np.array_equal(common.read_idx("t10k-images-idx3-ubyte"), images)
