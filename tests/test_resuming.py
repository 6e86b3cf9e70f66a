"""What a user is promised about searches that are interrupted, damaged, repeated, crowded or partly impossible."""

import contextlib
import errno
import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tuning  # isort: skip (first: it sets up TensorFlow)

import common
import h5py
import keras
import keras_tuner as kt
import numpy as np
import pytest
from conftest import (
    BAYESIAN, FOLDERS, RANDOM, ROOT, SMALL, TRIALS, assert_one_line, command, end_all_trials, end_trial, open_tuner,
    parser, read_until, trial_rows, wait_until
)
from tuning.files import write_json
from tuning.project import Project

DAMAGE = {
    "emptied": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "all but one byte": lambda content: content[:-1],
    "garbage": lambda content: random.Random(0).randbytes(len(content)),
    "another digit": lambda content: re.sub(rb"\d", lambda digit: b"%d" % ((int(digit[0]) + 1) % 10), content, count=1),
    "another letter": lambda content: content.replace(b"e", b"a", 1),
    "a list": lambda content: b"[]",
    "an object": lambda content: b"{}",
    "null": lambda content: b"null",
}
damages = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
both = pytest.mark.parametrize("script", FOLDERS)


def arguments(results_dir, *more):
    return [*SMALL, "--results-dir", str(results_dir), *more]


def spoil(path, damage):
    path.write_bytes(damage(path.read_bytes()))


def outcome(project):
    """What must not depend on interruptions: each trial but its duration, and what the models reach."""
    summary = json.loads((project / "summary.json").read_text())
    del summary["best"]["model"]  # its name tells its trial, durations included
    return trial_rows(project), summary["best"], summary["best_four"]


def result(output):
    return output[output.index("Best hyperparameters:"):]


def files(project):
    """The content of each file, but for those that tell who is at work on the project."""
    paths = [path for path in project.rglob("*") if path.is_file() and path.stem != "search"]
    return {str(path.relative_to(project)): path.read_bytes() for path in paths}


def trial_files(project):
    return {path.parent.name: path.read_bytes() for path in sorted(project.glob("trial_*/trial.json"))}


def completed(project):
    """The trial files that say that their trial is completed."""
    return {name: content for name, content in trial_files(project).items() if b'"COMPLETED"' in content}


def checkpoints(project):
    """The numbers of the trials, from 1, that have a checkpoint."""
    return {int(path.parent.name.removeprefix("trial_")) + 1 for path in project.glob("trial_*/checkpoint.weights.h5")}


def best_four(project):
    return [int(row["trial"]) for row in trial_rows(project)[:4]]


@pytest.fixture
def stored(reference):
    """stored(script): the project folder of a finished search, nobody's to write in."""
    return lambda script: reference(script) / "keras_tuner_results" / FOLDERS[script]


@pytest.fixture
def finished(stored, tmp_path):
    """finished(script): the project folder of a finished search, a copy of the test's own."""
    return lambda script: shutil.copytree(stored(script), tmp_path / "copy" / FOLDERS[script])


# --- Without training: a stored search is opened, and its trials end as the reference's did ---------------------------


def replay(oracle, reference):
    """Ends each trial that is left as the reference's trial of this number ended; returns the numbers."""
    trials = end_all_trials(oracle, lambda trial: reference.get(int(trial.trial_id), {"score": 0.5})["score"])
    for trial in trials:
        if expected := reference.get(int(trial.trial_id)):
            assert trial.hyperparameters.values == expected["hyperparameters"]["values"]
    return [int(trial.trial_id) for trial in trials]


def stored_trials(project):
    return {int(json.loads(content)["trial_id"]): json.loads(content) for content in trial_files(project).values()}


@both
@damages
def test_a_damaged_trial_alone_is_trained_again(script, damage, finished, capsys):
    project = finished(script)
    reference, before = stored_trials(project), trial_files(project)
    spoil(project / "trial_2" / "trial.json", damage)
    with open_tuner(script, project.parent) as tuner:
        assert f"{project}/trial_2/trial.json is damaged" in capsys.readouterr().out
        assert replay(tuner.oracle, reference) == [2]
    assert {name for name, content in trial_files(project).items() if content != before[name]} == {"trial_2"}


@both
@pytest.mark.parametrize("lost", [[0], [0, 1], [1, 4], [5], range(TRIALS)], ids=str)
def test_lost_trials_are_proposed_again_in_order_as_they_were(script, lost, finished):
    project = finished(script)
    reference = stored_trials(project)
    for number in lost:
        shutil.rmtree(project / f"trial_{number}")
    with open_tuner(script, project.parent) as tuner:
        assert replay(tuner.oracle, reference) == list(lost)


@both
def test_more_trials_are_added_to_those_of_a_finished_search(script, finished):
    project = finished(script)
    reference, before = stored_trials(project), trial_files(project)
    for max_trials, added in ((8, [6, 7]), (9, [8])):
        with open_tuner(script, project.parent, "--max-trials", max_trials) as tuner:
            assert replay(tuner.oracle, reference) == added
    assert before.items() <= trial_files(project).items()


def test_a_trial_that_a_killed_worker_started_starts_without_its_metrics(finished):
    with open_tuner(RANDOM, finished(RANDOM).parent, "--max-trials", TRIALS + 1) as tuner:
        trial_id = tuner.oracle.create_trial("tuner0").trial_id
        tuner.oracle.update_trial(trial_id, {"val_accuracy": 0.9, "seconds": 1.0})
        again = tuner.oracle.create_trial("tuner0")
        assert again.trial_id == trial_id and not again.metrics.metrics


def test_a_proposal_that_fails_loses_no_trial(finished, monkeypatch):
    project = finished(BAYESIAN)
    reference = stored_trials(project)
    for number in (2, 5):
        shutil.rmtree(project / f"trial_{number}")
    with open_tuner(BAYESIAN, project.parent) as tuner:
        end_trial(tuner.oracle, tuner.oracle.create_trial("tuner0"), reference[2]["score"])
        with monkeypatch.context() as broken:
            broken.setattr(kt.oracles.BayesianOptimizationOracle, "populate_space", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                tuner.oracle.create_trial("tuner0")
        assert sorted(map(int, tuner.oracle.trials)) == [0, 1, 2, 3, 4]
        assert replay(tuner.oracle, reference) == [5]


def test_a_damaged_trial_leaves_no_folder_behind_when_trials_are_added(finished):
    project = finished(RANDOM)
    reference = stored_trials(project)
    spoil(project / "trial_2" / "trial.json", DAMAGE["half"])
    with open_tuner(RANDOM, project.parent, "--max-trials", 11) as tuner:
        assert replay(tuner.oracle, reference) == [2, 6, 7, 8, 9, 10]
    assert len(stored_trials(project)) == len(list(project.glob("trial_*"))) == 11


@damages
def test_a_damaged_clock_is_told_once_and_goes_on_from_the_time_of_the_trials(damage, finished, capsys):
    project = finished(RANDOM)
    spoil(project / "elapsed.json", damage)
    trained = json.loads((project / "summary.json").read_text())["seconds_in_fit"]
    for message in (f"{project}/elapsed.json is missing or damaged: the time of the trials is used\n", ""):
        with open_tuner(RANDOM, project.parent) as tuner:
            assert tuner.oracle.stopwatch.save() == pytest.approx(trained)
        assert capsys.readouterr().out == message


@damages
def test_damaged_settings_are_told_and_written_again(damage, finished, capsys):
    project = finished(RANDOM)
    whole = (project / "settings.json").read_bytes()
    spoil(project / "settings.json", damage)
    with open_tuner(RANDOM, project.parent) as tuner:
        assert len(tuner.oracle.trials) == TRIALS
    assert f"{project}/settings.json is missing or damaged" in capsys.readouterr().out
    assert (project / "settings.json").read_bytes() == whole


# --- What is refused --------------------------------------------------------------------------------------------------


def refusal(script, project, *options):
    """The line that refuses to open a search, which is not touched, and names both ways out."""
    before = files(project)
    with pytest.raises(tuning.BadInput) as refused, open_tuner(script, project.parent, *options):
        pass
    assert files(project) == before
    line = str(refused.value)
    assert "\n" not in line and "--overwrite starts a new one, another --results-dir keeps both" in line
    return line


@pytest.mark.parametrize("name, value", [
    ("epochs", 3), ("batch-size", 64), ("patience", 4), ("seed", 2), ("precision", "mixed_float16"),
    ("train-images", 401), ("initial-points", 3),
])
def test_a_changed_setting_is_refused_with_both_values_and_both_ways_out(name, value, finished):
    project = finished(BAYESIAN)
    was = json.loads((project / "settings.json").read_text())[name.replace("-", "_")]
    assert f"({name.replace('-', '_')} was {was}, now {value})" in refusal(BAYESIAN, project, f"--{name}", value)


def test_other_settings_are_refused_even_where_the_stored_ones_are_lost(finished):
    project = finished(RANDOM)
    (project / "settings.json").unlink()
    assert "(epochs was 2, now 3)" in refusal(RANDOM, project, "--epochs", 3)


def build_narrower(build, hp):
    hp.Int("units", 64, 256, step=32)  # what is there already is not defined again
    return build(hp)


def build_untuned(build, hp):
    hp.Choice = lambda *args: "adam"
    return build(hp)


def build_deeper(build, hp):
    model = build(hp)
    model.add(keras.layers.Activation("linear"))
    return model


@pytest.mark.parametrize("change, named", [
    (build_narrower, r"\(search space of units was .*512.*, now .*256.*\)"),
    (build_untuned, r"\(search space of optimizer was .*adam.*, now None\)"),
    (build_deeper, r"\(network was \w+, now \w+\)"),
])
def test_a_changed_problem_is_refused(change, named, finished, monkeypatch):
    build = common.CNN().build
    monkeypatch.setattr(common.CNN, "build", lambda self, hp: change(build, hp))
    assert re.search(named, refusal(RANDOM, finished(RANDOM)))


def left_by_the_first_version(project, settings="settings.json"):
    """What the first version of this project stored, with its settings in settings.json or in the trials alone."""
    first = {"epochs": 30, "batch_size": 128, "patience": 3, "seed": 1, "precision": "float32", "train_images": 48000,
             "trial_epochs": 4, "final_epochs": 12, "networks": 4, "network": "ca4df593"}
    (project / "trial_0").mkdir(parents=True)
    write_json(project / "trial_0" / "trial.json", {"trial_id": "0", "status": "COMPLETED", "settings": first})
    if settings == "settings.json":
        write_json(project / "settings.json", first)
    write_json(project / "best_model.json", {"trial": 1})
    (project / "best_model.keras").write_bytes(b"a model")


def left_by_keras_tuner(project):
    class Untrained(kt.RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            return 0.5

    options = {"objective": kt.Objective("val_accuracy", "max"), "max_trials": 2}
    Untrained(common.CNN(), **options, directory=project.parent, project_name=project.name).search()


@pytest.mark.parametrize("leave", [
    left_by_the_first_version, lambda project: left_by_the_first_version(project, "lost"), left_by_keras_tuner
], ids=["first version", "first version without settings", "KerasTuner"])
def test_a_search_of_another_program_is_refused_until_it_is_overwritten(leave, tmp_path):
    project = tmp_path / FOLDERS[RANDOM]
    leave(project)
    assert f"{project} holds a search that this version can't resume" in refusal(RANDOM, project)
    with open_tuner(RANDOM, tmp_path, "--overwrite") as tuner:
        assert tuner.oracle.trials == {}
    assert list(files(project)) == ["settings.json"]


# --- What is never deleted --------------------------------------------------------------------------------------------


def test_what_a_user_put_into_the_folder_survives_whatever_is_deleted(finished, capsys):
    project = finished(RANDOM)
    shutil.copytree(project / "trial_1", project / "trial_1_backup")
    spoil(project / "trial_1_backup" / "trial.json", DAMAGE["half"])
    (project / "notes").mkdir()
    for path in (project / "notes" / "settings.json", project / "notes.txt", project / "trial_2" / "notes.txt"):
        path.write_text("mine")
    mine = {name: content for name, content in files(project).items() if "backup" in name or "notes" in name}
    assert len(mine) == 6
    with open_tuner(RANDOM, project.parent) as tuner:
        assert len(tuner.oracle.trials) == TRIALS and capsys.readouterr().out == ""
    assert mine.items() <= files(project).items()
    with open_tuner(RANDOM, project.parent, "--overwrite") as tuner:
        assert tuner.oracle.trials == {}
    assert files(project).keys() == mine.keys() | {"settings.json"} and mine.items() <= files(project).items()


def test_an_interrupted_overwrite_never_mixes_two_searches(finished, monkeypatch):
    project = finished(RANDOM)
    for path in (*project.glob("*.keras"), *project.rglob("*.h5")):
        path.write_bytes(b"")  # quicker to copy
    unlink, left = Path.unlink, math.inf

    def unlink_or_die(path, **options):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        unlink(path, **options)

    def open_project(*options):
        return Project(parser(RANDOM).parse_args(arguments(folder.parent, *options)), project.name)

    monkeypatch.setattr(Path, "unlink", unlink_or_die)
    for count in itertools.count():
        folder = shutil.copytree(project, project.parent.parent / str(count) / project.name)
        left = count
        try:
            with open_project("--overwrite"):
                break
        except KeyboardInterrupt:
            left = math.inf
        with open_project():
            assert files(folder) == {}
    assert count > len(files(project))


# --- Interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_ends_as_if_it_had_not_been(start, run, stored, tmp_path):
    project = tmp_path / FOLDERS[BAYESIAN]
    before = {}
    for number, text, status, ended in (
        (signal.SIGINT, "Trial 2 of", 130, 1),
        (signal.SIGTERM, "Trial 5 of", 143, 4),
        (signal.SIGTERM, f"Trial {TRIALS} of {TRIALS}: val_accuracy", 143, TRIALS),
    ):
        process = start(BAYESIAN, *arguments(tmp_path))
        read_until(process, text)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert_one_line(errors, "the same command resumes the search")
        now = completed(project)
        assert len(now) >= ended and before.items() <= now.items()
        before = now
    process = run(BAYESIAN, *arguments(tmp_path))
    assert process.returncode == 0 and "Trial" not in process.stdout
    assert before.items() <= completed(project).items()
    assert outcome(project) == outcome(stored(BAYESIAN))


def state(project):
    """The time and size of each file of the search, those half written included."""
    found = {}
    for path in (*project.glob("*.*"), *project.glob("trial_*/*")):
        with contextlib.suppress(FileNotFoundError):  # a draft that has just taken its place
            found[path] = path.stat().st_mtime_ns, path.stat().st_size
    return found


def wait_for_writes(process, project, count):
    """Waits until the files have changed so often, or the process has ended."""
    before = state(project)
    while process.poll() is None and count:
        if (now := state(project)) != before:
            before, count = now, count - 1
        time.sleep(0.002)


def kill_and_resume(script, results_dir, kills, expected):
    """Kills a search at seeded random instants, every other time while it writes a file, and lets it go on.

    Whenever it comes to its end, and at last, its outcome must be the expected one.
    """
    project, chance, killed = results_dir / FOLDERS[script], random.Random(script), 0
    while killed < kills:
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command(script, *arguments(results_dir)), **options)
        wait_for_writes(process, project, 1)  # until it is at work on its folder
        if killed % 2:
            wait_for_writes(process, project, chance.randint(1, 30))
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.expovariate(1 / 5))
        process.kill()
        errors = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode != 0
        if process.returncode == 0:
            assert outcome(project) == expected
            shutil.rmtree(project)
    process = subprocess.run(command(script, *arguments(results_dir)), capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert outcome(project) == expected


@pytest.mark.slow
def test_kills_at_random_instants_lose_and_change_nothing(stored, tmp_path):
    expected = {script: outcome(stored(script)) for script in FOLDERS}
    with ThreadPoolExecutor() as pool:  # both strategies at once
        list(pool.map(lambda script: kill_and_resume(script, tmp_path / script, 6, expected[script]), FOLDERS))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_tensorflow_is_imported_ends_in_one_line(number, start, tmp_path):
    process = start(RANDOM, *arguments(tmp_path))

    def imports_tensorflow():
        assert process.poll() is None, process.communicate()
        return "tensorflow" in Path(f"/proc/{process.pid}/maps").read_text()

    wait_until(imports_tensorflow)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and output == ""
    assert_one_line(errors, "the same command resumes the search")


def test_time_between_two_runs_is_not_counted(finished, run):
    project = finished(RANDOM)
    shutil.rmtree(project / f"trial_{TRIALS - 1}")
    write_json(project / "elapsed.json", {"seconds": 5000})
    os.utime(project / "elapsed.json", (0, 0))
    started = time.monotonic()
    assert run(RANDOM, *arguments(project.parent)).returncode == 0
    seconds = json.loads((project / "elapsed.json").read_text())["seconds"]
    assert 5000 < seconds < 5000 + time.monotonic() - started


@both
def test_a_finished_search_prints_the_same_result_without_training(script, finished, reference, run):
    project = finished(script)
    before = files(project)
    for name in ("trials.csv", "summary.json", "progress.png"):
        (project / name).unlink()
    process = run(script, *arguments(project.parent, "--workers", "2"))
    assert process.returncode == 0 and "Trial" not in process.stdout and "Epoch" not in process.stdout
    assert result(process.stdout) == result((reference(script) / "stdout.txt").read_text())
    after = files(project)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name] and not name.endswith(".keras")] == []  # has a date


def test_overwrite_starts_a_new_search_and_another_seed_gives_another_trial(finished, start):
    project = finished(RANDOM)
    before = stored_trials(project)[0]
    read_until(start(RANDOM, *arguments(project.parent, "--overwrite", "--seed", "2")), "Best so far")
    trial = stored_trials(project)[0]
    assert trial["status"] == "COMPLETED" and not (project / "best_model.keras").exists()
    assert trial["hyperparameters"]["values"] != before["hyperparameters"]["values"]
    assert [path.name for path in project.parent.iterdir() if path.is_dir()] == [project.name]


# --- Checkpoints and models -------------------------------------------------------------------------------------------


@both
def test_only_the_best_four_trials_keep_their_checkpoints(script, stored):
    assert checkpoints(stored(script)) == set(best_four(stored(script)))


def flip_signs(path):
    """Flips the sign bit of each weight of the largest layer: nobody who loads the file notices."""
    with h5py.File(path, "r+") as file:
        datasets = []
        file["layers"].visititems(lambda name, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        largest = max(datasets, key=lambda item: item.size)
        largest[...] = -largest[...]


@pytest.mark.slow
def test_a_checkpoint_that_does_not_give_its_trial_s_score_is_told_and_trained_again(finished, stored, run):
    project = finished(RANDOM)
    before, paths = trial_files(project), {}
    for trial in best_four(project):
        paths[trial] = project / f"trial_{trial - 1}" / "checkpoint.weights.h5"
    flipped, exchanged, missing, short = paths.values()
    flip_signs(flipped)
    shutil.copy(short, exchanged)
    missing.unlink()
    spoil(short, DAMAGE["half"])
    process = run(RANDOM, *arguments(project.parent))
    assert (process.returncode, process.stderr) == (0, "")
    for trial, path in paths.items():
        line = f"^{re.escape(str(path))} .*: trial {trial} is trained again$"
        assert len(re.findall(line, process.stdout, re.MULTILINE)) == 1
    assert outcome(project) == outcome(stored(RANDOM))
    assert checkpoints(project) == set(paths)
    changed = {name for name, content in trial_files(project).items() if content != before[name]}
    assert changed == {path.parent.name for path in paths.values()}


@pytest.mark.slow
def test_a_search_whose_trials_were_deleted_exports_the_model_of_the_new_ones(run, tmp_path):
    project = tmp_path / "old" / FOLDERS[RANDOM]
    options = ("--max-trials", "1")
    assert run(RANDOM, *arguments(project.parent, *options)).returncode == 0
    for path in (*project.glob("trial_*"), project / "settings.json", project / "elapsed.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    results, models = [], []
    for results_dir in (project.parent, tmp_path / "new"):
        process = run(RANDOM, *arguments(results_dir, *options, "--seed", "2"))
        assert process.returncode == 0, process.stderr
        results.append(result(process.stdout).partition("Total elapsed time")[0])
        models.append(keras.models.load_model(results_dir / project.name / "best_model.keras").get_weights())
    assert results[0] == results[1]
    assert all(np.array_equal(*weights) for weights in zip(*models, strict=True))


@both
def test_no_file_of_a_search_can_run_code_when_it_is_loaded(script, stored):
    for path in stored(script).rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".csv", ".png", ".keras", ".h5", ".lock", ".pid")
        if path.suffix == ".keras":
            keras.models.load_model(path, safe_mode=True)
            with zipfile.ZipFile(path) as archive:
                assert b"Lambda" not in archive.read("config.json")
    for path in (*ROOT.glob("*.py"), *ROOT.glob("tuning/*.py")):
        assert not re.search(r"pickle|joblib|\beval\(|safe_mode=False|Lambda\(", path.read_text())


@pytest.mark.slow
def test_a_search_with_damage_in_every_file_is_repaired(finished, stored, run):
    project = finished(BAYESIAN)
    before = trial_files(project)
    *_, first, second = [int(row["trial"]) - 1 for row in trial_rows(project)]
    for path, name in {
        "settings.json": "half", "elapsed.json": "garbage", "summary.json": "a list", "trials.csv": "garbage",
        "best_model.keras": "half", "best_four.keras": "garbage", "progress.png": "emptied",
        "trial_0/build_config.json": "garbage",
        f"trial_{first}/trial.json": "all but one byte", f"trial_{second}/trial.json": "null",
    }.items():
        spoil(project / path, DAMAGE[name])
    process = run(BAYESIAN, *arguments(project.parent))
    assert process.returncode == 0, process.stderr
    for name in ("settings.json", "elapsed.json", f"trial_{first}/trial.json", f"trial_{second}/trial.json"):
        assert str(project / name) in process.stdout
    assert outcome(project) == outcome(stored(BAYESIAN))
    keras.models.load_model(project / "best_model.keras")
    keras.models.load_model(project / "best_four.keras")
    assert (project / "progress.png").read_bytes() == (stored(BAYESIAN) / "progress.png").read_bytes()
    changed = {name for name, content in trial_files(project).items() if content != before[name]}
    assert changed == {f"trial_{first}", f"trial_{second}"}


# --- Crowded ----------------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_a_killed_one_blocks_nobody(start, run, tmp_path):
    first = start(RANDOM, *arguments(tmp_path))
    read_until(first, "Trial 1 of")
    second = run(RANDOM, *arguments(tmp_path, "--overwrite"))
    assert second.returncode == 2
    assert_one_line(second.stderr, f"process {first.pid} ")
    assert first.poll() is None and trial_files(tmp_path / FOLDERS[RANDOM])
    first.kill()
    first.wait()
    read_until(start(RANDOM, *arguments(tmp_path)), f" of {TRIALS}: units")


def limit(size):
    """Lets no file of a process grow beyond so many bytes, as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def assert_full(process, project, number):
    """The process has ended in one line that says so; no trial is taken for failed, no half-written file is left."""
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, os.strerror(number), "the same command resumes the search")
    assert not list(project.rglob("*draft*"))  # half a file would take the room away
    assert not any(b"FAILED" in content for content in trial_files(project).values())


@pytest.mark.parametrize("size", [500, 2400, 300_000])
def test_a_full_disk_ends_in_one_line_and_fails_no_trial(size, run, tmp_path):
    """The sizes are too small for settings.json, for a trial's file, and for a checkpoint."""
    process = run(RANDOM, *arguments(tmp_path, "--max-trials", "1"), preexec_fn=limit(size))
    assert_full(process, tmp_path / FOLDERS[RANDOM], errno.EFBIG)


def test_a_disk_without_room_for_the_best_model_keeps_all_trials(finished, run):
    project = finished(RANDOM)
    before = trial_files(project)
    assert_full(run(RANDOM, *arguments(project.parent), preexec_fn=limit(300_000)), project, errno.EFBIG)
    assert trial_files(project) == before


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mount is not permitted")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_search_goes_on_once_there_is_room_on_the_disk(small_disk, stored, run):
    project = small_disk / FOLDERS[RANDOM]
    assert_full(run(RANDOM, *arguments(small_disk)), project, errno.ENOSPC)
    before = completed(project)
    assert 0 < len(before) < TRIALS
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    assert run(RANDOM, *arguments(small_disk)).returncode == 0
    assert before.items() <= completed(project).items()
    assert outcome(project) == outcome(stored(RANDOM))


def test_a_reader_that_goes_away_ends_the_search_in_one_line(start, tmp_path):
    process = start(RANDOM, *arguments(tmp_path))
    read_until(process, "Trial 1 of")
    process.stdout.close()
    errors = process.stderr.read()
    process.wait(timeout=60)
    assert process.returncode == 1
    assert_one_line(errors, os.strerror(errno.EPIPE))
    assert not any(b"FAILED" in content for content in trial_files(tmp_path / FOLDERS[RANDOM]).values())


def test_ctrl_c_that_ends_the_reader_as_well_is_still_an_interruption(start, tmp_path):
    process = start(RANDOM, *arguments(tmp_path), stderr=subprocess.STDOUT)
    read_until(process, "Trial 1 of")
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


# --- Failing trials ---------------------------------------------------------------------------------------------------


FAILING = """
import runpy
import tuning
import common
import keras

build, units = common.CNN.build, set()

def build_or_fail(self, hp):
    model = build(self, hp)
    units.add(hp.get("units"))
    if {all_fail} and len(units) > 1:  # not the default, which the tuner builds first
        raise ValueError("can't build this")
    if len(units) == 3:
        raise ValueError("can't build this")
    if len(units) == 4:
        nan = lambda true, predicted: keras.ops.sum(predicted) * float("nan")
        model.compile(keras.optimizers.SGD(use_ema=True), nan, metrics=["accuracy"])
    return model

common.CNN.build = build_or_fail
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture
def run_failing(run, tmp_path):
    """run_failing(all_fail): runs a random search of four trials, of which the second and the third fail, or all."""

    def run_failing(all_fail):
        (tmp_path / "failing.py").write_text(FAILING.format(all_fail=all_fail, script=str(ROOT / RANDOM)))
        options = arguments(tmp_path, "--max-trials", "4")
        return run(tmp_path / "failing.py", *options, env=os.environ | {"PYTHONPATH": str(ROOT)})

    return run_failing


@pytest.mark.slow
def test_failing_trials_are_reported_and_the_search_goes_on(run_failing, tmp_path):
    process = run_failing(all_fail=False)
    assert (process.returncode, process.stderr) == (0, "")
    rows = trial_rows(tmp_path / FOLDERS[RANDOM])
    failed = {row["trial"]: row["message"] for row in rows if row["status"] == "FAILED"}
    assert set(failed) == {"2", "3"} and len(rows) == 4
    assert "can't build this" in failed["2"] and "the loss was nan in epoch 1" in failed["3"]
    for trial, reason in failed.items():
        assert f"Trial {trial} of 4: failed: {reason}" in process.stdout
        assert f"\nTrial {trial} failed: {reason}\n" in process.stdout
    assert "\nBest 2 together: test accuracy 0." in process.stdout


def test_a_trial_whose_objective_is_no_number_fails(tmp_path):
    with open_tuner(RANDOM, tmp_path) as tuner:
        trial = tuner.oracle.create_trial("tuner0")
        with pytest.raises(kt.errors.FailedTrialError, match="the val_accuracy was nan in epoch 2"):
            tuner.on_epoch_end(trial, None, 1, {"loss": 0.5, "val_accuracy": math.nan})


def test_an_objective_that_is_not_measured_is_reported_by_name(tmp_path):
    with open_tuner(RANDOM, tmp_path) as tuner:
        trial = tuner.oracle.create_trial("tuner0")
        tuner.on_epoch_begin(trial, None, 0)
        with pytest.raises(ValueError, match="Objective value missing in metrics .*val_accuracy"):
            tuner.on_epoch_end(trial, None, 0, {"loss": 0.5})


def test_a_search_whose_trials_all_fail_ends_in_one_line(run_failing):
    process = run_failing(all_fail=True)
    assert process.returncode == 1
    assert_one_line(process.stderr, "all trials failed", "can't build this")
    assert process.stdout.count("failed: ValueError: can't build this") == 4
