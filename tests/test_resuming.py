"""What a user is promised about searches that are interrupted, damaged, changed, overwritten or repeated."""

import contextlib
import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

from tuning import environment  # isort: skip (first: it sets up TensorFlow)
from conftest import BAYESIAN, DIGITS, FOLDERS, ONE_CORE, QUICK, RANDOM, ROOT, SMALL, TRIALS  # isort: skip

import keras_tuner as kt
import pytest
from conftest import assert_one_line, outcome, result, trial_rows, trials, wait_until

import common
from tuning import folder, oracle, proposals
from tuning.command_line import Parser
from tuning.tuner import BayesianOptimization, RandomSearch

DAMAGE = {
    "emptied": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
    "other names": lambda content: content.replace(b'": ', b'_": ').replace(b"layers", b"nobody"),
    "an object": lambda content: b"{}",
}
both = pytest.mark.parametrize("script", FOLDERS)


def spoil(path, damage):
    path.write_bytes(damage(path.read_bytes()))


def files(project):
    """The content of each file of a search, but for those that tell who is at work."""
    paths = [path for path in project.rglob("*") if path.is_file() and path.name != "lock"]
    return {path: path.read_bytes() for path in paths if path.parent.name != "processes"}


@pytest.fixture
def open_tuner():
    """open_tuner(script, results_dir, *options, **arguments): a tuner as the script makes it, at work in its folder."""

    def open_tuner(script, results_dir, *options, hypermodel=None, objective="val_accuracy"):
        parser = Parser("")
        parser.add_number("--train-images", 48_000, "")
        if script == BAYESIAN:
            parser.add_number("--initial-points", 4, "")
        args = parser.parse_args([*SMALL, "--results-dir", str(results_dir), *map(str, options)])
        tuner = {RANDOM: RandomSearch, BAYESIAN: BayesianOptimization}[script]
        tuner = tuner(hypermodel or common.CNN(), objective, FOLDERS[script], args)
        opened.enter_context(tuner.folder)
        return tuner

    with contextlib.ExitStack() as opened:
        yield open_tuner


def space(names):
    hp = kt.HyperParameters()
    for name in names.split():
        hp.Float(name, 1e-4, 1, sampling="log")
    return hp


def end_all_trials(searched, score):
    """Hands out all trials that are left, and ends each with score(values), untrained; returns what they tried."""
    found, searched.verbose = {}, 0
    while (trial := searched.create_trial("tuner0")).status == "RUNNING":
        found[int(trial.trial_id)] = values = dict(trial.hyperparameters.values)
        searched.update_trial(trial.trial_id, {searched.objective.name: score(values)})
        trial.status = "COMPLETED"
        searched.end_trial(trial)
    assert trial.status == "STOPPED"
    return found


def replay(searched, reference):
    """Ends each trial that is left as the reference's ended, which tried the same; returns the numbers."""
    scores = {json.dumps(values): score for values, score in reference.values()}
    found = end_all_trials(searched, lambda values: scores.get(json.dumps(values), 0.5))
    assert all(values == reference[number][0] for number, values in found.items() if number in reference)
    return [*found]


LOST = [*((damage, 3, []) for damage in DAMAGE), ("half", 1, [2, 5]), ("half", 6, range(1, 6))]


@both
@pytest.mark.parametrize("damage, damaged, lost", LOST)
def test_damaged_and_lost_trials_come_again_as_they_were(script, damage, damaged, lost, finished, open_tuner, capsys):
    project = finished(script)
    reference = trials(project)
    spoil(project / f"trial_{damaged}" / "trial.json", DAMAGE[damage])
    for number in lost:
        (project / f"trial_{number}" / "trial.json").unlink()
    assert replay(open_tuner(script, project.parent).oracle, reference) == sorted([damaged, *lost])
    told = re.findall(f"^{project}/trial_.* is damaged, so trial (.) is trained again$", capsys.readouterr().out, re.M)
    assert told == [str(damaged)] and trials(project) == reference


@both
def test_more_trials_are_added_as_if_there_had_been_as_many_from_the_start(script, finished, open_tuner, tmp_path):
    project = finished(script)
    reference = trials(project)
    for max_trials, added in ((8, [7, 8]), (9, [9])):
        with (tuner := open_tuner(script, project.parent, "--max-trials", max_trials)).folder:
            assert replay(tuner.oracle, reference) == added
    replay(open_tuner(script, tmp_path / "at_once", "--max-trials", 9).oracle, reference)
    assert trials(project) == trials(tmp_path / "at_once" / FOLDERS[script])


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_trials_with_damaged_settings_are_refused_and_not_touched(damage, finished, open_tuner, capsys):
    project = finished(RANDOM)
    spoil(project / "settings.json", damage)
    refused(open_tuner, RANDOM, project, capsys)


def checkpoints(project):
    """The checkpoints of the best four trials, by their numbers."""
    numbers = [int(row["trial"]) for row in trial_rows(project)[:4]]
    return {number: next(project.glob(f"trial_{number}/*/checkpoint.weights.h5")) for number in numbers}


def test_each_damaged_checkpoint_of_the_best_trials_is_told_and_trained_again(finished, stored, run):
    project = finished(RANDOM)
    paths = checkpoints(project)
    damaged, missing, *_ = paths
    with open(paths[damaged], "r+b") as file:  # in the weights: nobody who loads the file notices
        file.seek(-1000, os.SEEK_END)
        file.write(b"another")
    paths[missing].unlink()
    process = run(RANDOM, *SMALL)
    assert (process.returncode, process.stderr) == (0, "")
    told = re.findall(r"/trial_(\d): its checkpoint is missing or damaged, so trial \1 is trained", process.stdout)
    assert {*map(int, told)} == {*map(int, re.findall(r"Trial (\d), epoch", process.stdout))} == {damaged, missing}
    assert outcome(project) == outcome(stored(RANDOM))


@pytest.mark.parametrize("damage", [*DAMAGE, "another trial's"])
def test_no_damage_of_a_checkpoint_goes_unnoticed(damage, finished, open_tuner):
    project = finished(RANDOM)
    tuner, (path, other, *_) = open_tuner(RANDOM, project.parent), checkpoints(project).values()
    assert not tuner.oracle.forget_damaged()
    spoil(path, DAMAGE.get(damage, lambda content: other.read_bytes()))
    assert tuner.oracle.forget_damaged() and len(trials(project)) == TRIALS - 1


def refused(open_tuner, script, project, capsys, *parts, options=(), **arguments):
    """Opening a search is refused in one line with these parts and both ways out; nothing is touched."""
    before = files(project)
    with pytest.raises(SystemExit, match="2"):
        open_tuner(script, project.parent, *options, **arguments)
    assert files(project) == before
    ways_out = "--overwrite starts a new search, another --results-dir keeps both"
    assert_one_line(capsys.readouterr().err, str(project), ways_out, *parts)


def changed(before=lambda hp: None, after=lambda model: None):
    """The CNN with something done before it is built and after."""

    def build(hp):
        before(hp)
        model = common.CNN().build(hp)
        after(model)
        return model

    return build


OPTIONS = {"epochs": 3, "batch-size": 64, "patience": 4, "seed": 2, "train-images": 401, "initial-points": 3}
CHANGES = {f"{name.replace('-', '_')} was ": {"options": (f"--{name}", now)} for name, now in OPTIONS.items()} | {
    "precision was ": {"options": ("--precision", "mixed_float16")},
    "search space of units was ": {"hypermodel": changed(lambda hp: hp.Int("units", 64, 256, step=32))},
    "search space of more was None, ": {"hypermodel": changed(lambda hp: hp.Boolean("more"))},
    "network was ": {"hypermodel": changed(after=lambda model: model.add(environment.keras.layers.ReLU()))},
    "objective was ": {"objective": kt.Objective("val_accuracy", "min")},
}


@pytest.mark.parametrize("text", CHANGES)
def test_a_changed_setting_is_refused_with_both_values_and_both_ways_out(text, finished, open_tuner, capsys):
    _, now = CHANGES[text].get("options", ("", ""))
    refused(open_tuner, BAYESIAN, finished(BAYESIAN), capsys, f"({text}", f", now {now}", **CHANGES[text])


def test_versions_are_settings_and_words_are_not(finished, open_tuner, capsys, monkeypatch):
    project = finished(RANDOM)
    with open_tuner(RANDOM, project.parent, hypermodel=changed()).folder as same:  # the same problem in other words
        assert same.settings["tensorflow"] == environment.tf.__version__
    monkeypatch.setattr(environment, "VERSIONS", {"tensorflow": "1.0"})
    refused(open_tuner, RANDOM, project, capsys, "tensorflow was ", "now 1.0")


LEFT = {
    "an earlier version": {"settings.json": '{"settings": {"epochs": 2}, "checksum": "12345678"}'},
    "one that lost its settings": {"trial_1/trial.json": '{"trial_id": "1", "status": "COMPLETED"}'},
    "KerasTuner before its first trial": {"oracle.json": "{}", "tuner0.json": "{}"},
}


@pytest.mark.parametrize("who", LEFT)
def test_a_search_of_another_program_is_refused_until_it_is_overwritten(who, tmp_path, open_tuner, capsys):
    project = tmp_path / FOLDERS[RANDOM]
    for name, content in LEFT[who].items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    refused(open_tuner, RANDOM, project, capsys)
    assert open_tuner(RANDOM, tmp_path, "--overwrite").oracle.trials == {}
    assert [*files(project)] == [project / "settings.json"]


def test_interrupted_on_one_core_a_search_has_the_digits_of_undisturbed_processes(start, run, stored, tmp_path):
    project, before = tmp_path / "keras_tuner_results" / FOLDERS[BAYESIAN], {}
    for number, ended in {signal.SIGINT: 2, signal.SIGKILL: TRIALS}.items():  # it trains, it reports
        process = start(BAYESIAN, *SMALL, **ONE_CORE)
        wait_until(lambda: len(trials(project)) >= ended)
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)
        assert ", 1 trial at a time\n" in output and before.items() <= trials(project).items()
        before = trials(project)
    assert run(BAYESIAN, *SMALL, **ONE_CORE).returncode == 0
    assert outcome(project) == outcome(stored(BAYESIAN))


def search(path, overwrite=False):
    """Searches for four trials, and trains nothing."""
    options = {"objective": kt.Objective("loss", "min"), "max_trials": 4, "seed": 1, "hyperparameters": space("a b")}
    searched = oracle.FolderOracle(None, **options)
    with folder.Folder(path, overwrite, {}, {}) as shared:
        searched.join(shared, 1)
        end_all_trials(searched, lambda values: values["a"])


def search_and_die(path, step, overwrite):
    """The same in a process that is killed before the step-th change of a file or a folder; whether there were less."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] == 0
    try:
        steps = itertools.count(1)

        def or_die(change, *args, **options):
            return os._exit(1) if next(steps) == step else change(*args, **options)

        for name in ("mkdir", "replace", "unlink", "rmdir", "remove", "rename"):
            setattr(os, name, functools.partial(or_die, getattr(os, name)))
        search(path, overwrite)
        os._exit(0)
    finally:
        os._exit(2)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_before_any_change_of_a_file_neither_loses_nor_changes_a_trial(overwrite, tmp_path):
    search(tmp_path / "undisturbed")
    for step in itertools.count(1):
        project = tmp_path / str(step)
        if overwrite:
            shutil.copytree(tmp_path / "undisturbed", project)
            old = json.loads((project / "settings.json").read_text())
            (project / "settings.json").write_text(json.dumps(old | {"made": 1}))  # before this process was started
        if search_and_die(project, step, overwrite):
            break
        kept = trials(project)
        search(project, overwrite)  # without the option, half a search that was being deleted is refused
        assert kept.items() <= trials(project).items() == trials(tmp_path / "undisturbed").items()
    assert step > 30


def test_overwrite_is_refused_while_another_process_lives_in_whatever_phase(start, tmp_path, monkeypatch, capsys):
    process = start(DIGITS, "--epochs", "30", "--max-trials", "2", "--workers", "1")
    project = tmp_path / "keras_tuner_results" / "digits"
    for phase in ("trial_1/run_*/epochs.jsonl", "trial_2/run_*/epochs.jsonl", "best_model.keras"):
        wait_until(lambda: any(project.glob(phase)))
        process.send_signal(signal.SIGSTOP)
        before = files(project)
        monkeypatch.setattr("tuning.folder.STARTED", time.time())  # after the search was made
        with pytest.raises(SystemExit, match="2"):
            folder.Folder(project, True, {}, {})
        assert_one_line(capsys.readouterr().err, f"process {process.pid}", "another --results-dir")
        assert files(project) == before
        process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=100)[1] == "" and process.returncode == 0


def test_overwrite_empties_a_link_s_target_and_the_link_stays(finished, open_tuner, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.folder.STARTED", time.time())  # after the search was made
    project = finished(RANDOM)
    elsewhere = project.rename(tmp_path / "elsewhere")
    project.symlink_to(elsewhere)
    tuner = open_tuner(RANDOM, project.parent, "--overwrite")
    assert project.is_symlink() and [*files(elsewhere)] == [elsewhere / "settings.json"]
    tuner.oracle.create_trial("tuner0")
    assert (elsewhere / "trial_1" / "trial.json").exists()


def test_of_two_simultaneous_starts_with_overwrite_one_empties_and_one_joins(reference, start, tmp_path):
    shutil.copytree(reference(DIGITS, *QUICK, "--workers", "2"), tmp_path, dirs_exist_ok=True)
    project, started = tmp_path / "keras_tuner_results" / "digits", time.time()
    (project / "trial_1" / "trial.json").unlink()
    options = (*QUICK, "--workers", "1", "--seed", "2", "--overwrite")
    processes = [start(DIGITS, *options) for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert result(outputs[0]) == result(outputs[1])
    states = [json.loads(path.read_text()) for path in project.glob("trial_*/trial.json")]
    assert len(states) == 4 and all(state["started"] > started for state in states)
    assert len({state["process"] for state in states}) == 2


def test_a_value_depends_neither_on_the_order_of_the_space_nor_on_what_else_is_in_it():
    for place in itertools.product(range(1, 4), (1, 2, 30)):  # the seed and the trial's number
        values, _ = proposals.propose(space("rate noise width"), *place, [], [])
        assert values == proposals.propose(space("width rate noise"), *place, [], [])[0]
        assert values.items() < proposals.propose(space("other width rate noise"), *place, [], [])[0].items()


def test_searches_with_other_seeds_share_no_trial():
    places = itertools.product(range(1, 6), range(1, 11))  # seeds and the trials' numbers
    assert len({str(proposals.propose(space("a b"), *place, [], [])) for place in places}) == 50


@both
def test_a_small_space_is_tried_without_repetition_and_ends_the_search(script, tmp_path, open_tuner):
    def build(hp):
        model = environment.keras.Sequential([environment.keras.Input((1,)), environment.keras.layers.Dense(1)])
        hp.Choice("a", [1, 2, 3]), hp.Boolean("b")
        model.compile("sgd", "mse")
        return model

    early = ("--initial-points", 1) if script == BAYESIAN else ()
    for max_trials, new in ((4, 4), (10, 2), (11, 0)):
        with (tuner := open_tuner(script, tmp_path, "--max-trials", max_trials, *early, hypermodel=build)).folder:
            assert len(end_all_trials(tuner.oracle, lambda values: values["a"] + values["b"])) == new
    assert len({json.dumps(values) for values, _ in trials(tmp_path / FOLDERS[script]).values()}) == 6


REPLICAS = """
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tuning import environment
import keras, numpy as np
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0), "mse")
model.fit(np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]]), batch_size=2, verbose=0, shuffle=False)
print(model.get_weights()[0].item())
"""


def test_a_distribution_strategy_still_sums_the_gradients_of_its_replicas():
    """From 0, with targets 1 and 3 on a replica each, the summed gradient of the mean squared error leads to 4."""
    process = subprocess.run([sys.executable, "-c", REPLICAS], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout == "4.0\n", process.stderr
