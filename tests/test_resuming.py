"""What a user is promised about searches that are interrupted, damaged, repeated, crowded or partly impossible."""

import contextlib
import errno
import json
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

import common  # first: it sets up TensorFlow before anything else imports it

import keras
import pytest
from conftest import (
    BAYESIAN, FOLDERS, RANDOM, ROOT, SMALL, TRIALS, assert_one_line, command, read_until, trial_rows, wait_until
)

import bayesian_tuning
import random_search_tuning
import search
import storage
import workers

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
    """What must not depend on interruptions: each trial but its duration, and the best model's accuracies."""
    summary = json.loads((project / "summary.json").read_text())
    return trial_rows(project), summary["best"], summary["best_model_training"]["curves"]


def trial_files(project):
    return {path.parent.name: path.read_bytes() for path in sorted(project.glob("trial_*/trial.json"))}


def completed(project):
    """The trial files that say that their trial is completed."""
    return {name: content for name, content in trial_files(project).items() if b'"COMPLETED"' in content}


@pytest.fixture
def stored(reference):
    """stored(script): the project folder of a finished search, nobody's to write in."""
    return lambda script: reference(script) / "keras_tuner_results" / FOLDERS[script]


@pytest.fixture
def finished(stored, tmp_path):
    """finished(script): the project folder of a finished search, a copy of the test's own."""

    def copy(script):
        return shutil.copytree(stored(script), tmp_path / "copy" / FOLDERS[script])

    return copy


def only_first_trials(project, count):
    """Takes a finished search back to when it had so many trials."""
    for path in project.iterdir():
        if not path.name.startswith("trial_"):
            if path.name not in ("settings.json", "elapsed.json"):
                path.unlink()
        elif int(path.name.removeprefix("trial_")) >= count:
            shutil.rmtree(path)


# --- Without processes: a stored search is opened, and its trials end as the reference's did --------------------------


def open_tuner(script, project, max_trials=TRIALS):
    parser = common.argument_parser("")
    parser.add_argument("--initial-points", type=int, default=4)
    settings = parser.parse_args([*arguments(project.parent), "--max-trials", str(max_trials)])
    if script == RANDOM:
        del settings.initial_points
    settings.project = project
    storage.check_settings(settings)
    options = {"objective": "val_accuracy", "max_trials": max_trials, "seed": settings.seed,
               "hyperparameters": common.search_space()}
    if script == RANDOM:
        oracle = random_search_tuning.RandomSearch(**options)
    else:
        oracle = bayesian_tuning.BayesianOptimization(num_initial_points=settings.initial_points, **options)
    return search.Tuner(oracle, common.CNN(settings), settings)


def replay(oracle, reference):
    """Ends each trial that is left as the reference's trial of this number ended; returns the numbers."""
    numbers = []
    while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
        number = int(trial.trial_id)
        numbers.append(number)
        if number in reference:
            assert trial.hyperparameters.values == reference[number]["hyperparameters"]["values"], number
            score = reference[number]["score"]
        else:
            score = 0.5
        oracle.update_trial(trial.trial_id, {"val_accuracy": score, "seconds": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return numbers


def stored_trials(project):
    return {int(json.loads(content)["trial_id"]): json.loads(content) for content in trial_files(project).values()}


@both
@damages
def test_a_damaged_trial_alone_is_trained_again(script, damage, finished, capsys):
    project = finished(script)
    reference, files = stored_trials(project), trial_files(project)
    spoil(project / "trial_2" / "trial.json", damage)
    oracle = open_tuner(script, project).oracle
    assert f"{project}/trial_2/trial.json is damaged" in capsys.readouterr().out
    assert replay(oracle, reference) == [2]
    assert {name for name, content in trial_files(project).items() if content != files[name]} == {"trial_2"}


@both
@pytest.mark.parametrize("lost", [[0], [0, 1], [1, 4], [5], range(TRIALS)], ids=str)
def test_lost_trials_are_proposed_again_in_order_as_they_were(script, lost, finished):
    project = finished(script)
    reference = stored_trials(project)
    for number in lost:
        shutil.rmtree(project / f"trial_{number}")
    assert replay(open_tuner(script, project).oracle, reference) == list(lost)


@both
def test_more_trials_are_added_to_those_of_a_finished_search(script, finished):
    project = finished(script)
    reference, files = stored_trials(project), trial_files(project)
    assert replay(open_tuner(script, project, max_trials=11).oracle, reference) == [6, 7, 8, 9, 10]
    assert files.items() <= trial_files(project).items()
    assert replay(open_tuner(script, project, max_trials=12).oracle, reference) == [11]


def test_a_trial_that_a_killed_worker_began_begins_without_its_metrics(finished):
    project = finished(RANDOM)
    oracle = open_tuner(RANDOM, project, max_trials=TRIALS + 1).oracle
    trial_id = oracle.create_trial("tuner0").trial_id
    oracle.update_trial(trial_id, {"val_accuracy": 0.9, "seconds": 1.0})
    again = oracle.create_trial("tuner0")
    assert again.trial_id == trial_id and not again.metrics.metrics


def test_there_are_no_more_workers_than_trials(finished, monkeypatch):
    tuner = open_tuner(RANDOM, finished(RANDOM), max_trials=TRIALS + 1)
    tuner.settings.workers = 100
    counts = []
    monkeypatch.setattr(workers, "run_chief", lambda oracle, count, gpus, serve: counts.append(count))
    tuner.search()
    assert counts == [TRIALS + 1]


def test_a_damaged_trial_leaves_no_folder_behind_when_trials_are_added(finished):
    project = finished(RANDOM)
    reference = stored_trials(project)
    spoil(project / "trial_2" / "trial.json", DAMAGE["half"])
    assert replay(open_tuner(RANDOM, project, max_trials=11).oracle, reference) == [2, 6, 7, 8, 9, 10]
    assert len(stored_trials(project)) == len(list(project.glob("trial_*"))) == 11


@damages
def test_a_damaged_clock_is_told_once_and_goes_on_from_the_time_of_the_trainings(damage, finished, capsys):
    project = finished(RANDOM)
    spoil(project / "elapsed.json", damage)
    oracle = open_tuner(RANDOM, project).oracle
    assert f"{project}/elapsed.json is missing or damaged" in capsys.readouterr().out
    trained = json.loads((project / "summary.json").read_text())["seconds_in_fit"]
    assert oracle.stopwatch.seconds() == pytest.approx(trained)
    assert open_tuner(RANDOM, project).oracle.stopwatch.seconds() == pytest.approx(trained)
    assert capsys.readouterr().out == ""


@damages
def test_damaged_settings_are_told_and_written_again(damage, finished, capsys):
    project = finished(RANDOM)
    whole = (project / "settings.json").read_bytes()
    spoil(project / "settings.json", damage)
    assert len(open_tuner(RANDOM, project).oracle.trials) == TRIALS
    assert f"{project}/settings.json is missing or damaged" in capsys.readouterr().out
    assert (project / "settings.json").read_bytes() == whole


def test_other_settings_are_refused_even_where_the_stored_ones_are_lost(finished):
    project = finished(RANDOM)
    (project / "settings.json").unlink()
    settings = common.argument_parser("").parse_args(arguments(project.parent, "--epochs", "3"))
    settings.project = project
    with pytest.raises(common.BadInput, match=r"\(epochs was 2, now 3\)"):
        storage.check_settings(settings)


@pytest.mark.slow
def test_the_best_model_trained_again_is_the_same(finished):
    project = finished(RANDOM)
    files, made = trial_files(project), keras.models.load_model(project / "best_model.keras").get_weights()
    (project / "best_model.keras").unlink()
    tuner = open_tuner(RANDOM, project)
    train, validation = common.load_train_data(400)
    tuner.search(*train, validation_data=validation)
    again, _ = tuner.best_model()
    assert all((one == other).all() for one, other in zip(again.get_weights(), made, strict=True))
    assert trial_files(project) == files


@pytest.mark.parametrize("name, damage", [
    ("best_model.keras", "half"), ("best_model.keras", None), ("best_model.json", "another digit"),
    ("best_model.json", None),
])
def test_a_damaged_or_missing_best_model_is_told_and_trained_again(name, damage, finished, capsys, monkeypatch):
    project = finished(RANDOM)
    if damage:
        spoil(project / name, DAMAGE[damage])
    else:
        (project / name).unlink()
    monkeypatch.setattr(search.Tuner, "train_best_model", lambda self, trial, path: "trained again")
    assert open_tuner(RANDOM, project).best_model() == "trained again"
    assert f"{project}/best_model.keras or its .json is missing or damaged" in capsys.readouterr().out


def test_a_first_best_model_is_no_damage(finished, capsys, monkeypatch):
    project = finished(RANDOM)
    only_first_trials(project, TRIALS)
    monkeypatch.setattr(search.Tuner, "train_best_model", lambda self, trial, path: "trained")
    assert open_tuner(RANDOM, project).best_model() == "trained" and capsys.readouterr().out == ""


@pytest.mark.parametrize("name, value", [
    ("epochs", 3), ("batch-size", 64), ("patience", 4), ("seed", 2), ("precision", "mixed_float16"),
    ("train-images", 401), ("initial-points", 3),
])
def test_a_changed_setting_is_refused_with_both_values_and_both_ways_out(name, value, stored):
    project = stored(BAYESIAN)
    before = (project / "settings.json").read_bytes()
    parser = common.argument_parser("")
    parser.add_argument("--initial-points", type=int, default=4)
    settings = parser.parse_args([*arguments(project.parent), f"--{name}", str(value)])
    settings.project = project
    name = name.replace("-", "_")
    with pytest.raises(common.BadInput) as refusal:
        storage.check_settings(settings)
    was = json.loads(before)[name]
    assert f"({name} was {was}, now {value})" in str(refusal.value)
    assert "--overwrite" in str(refusal.value) and "another --results-dir" in str(refusal.value)
    assert (project / "settings.json").read_bytes() == before


def test_a_changed_search_space_is_refused(stored, monkeypatch):
    space = common.search_space()
    space.space[0].max_value = 256
    monkeypatch.setattr(common, "search_space", lambda: space)
    project = stored(RANDOM)
    with pytest.raises(common.BadInput, match="search space of units was .*512.*, now .*256"):
        open_tuner(RANDOM, project)


def test_a_hyperparameter_that_is_no_longer_tuned_is_refused(stored, monkeypatch):
    space = common.search_space()
    del space.space[-1]
    monkeypatch.setattr(common, "search_space", lambda: space)
    with pytest.raises(common.BadInput, match="search space of optimizer was .*adam.*, now None"):
        open_tuner(RANDOM, stored(RANDOM))


def test_a_changed_network_is_refused(stored, monkeypatch):
    layers = [keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)]
    monkeypatch.setattr(common, "build_network", lambda hp: keras.Sequential(layers))
    with pytest.raises(common.BadInput, match="network was"):
        open_tuner(RANDOM, stored(RANDOM))


def test_an_interrupted_overwrite_never_mixes_two_searches(finished, monkeypatch):
    project = finished(RANDOM)
    settings = common.argument_parser("").parse_args([*arguments(project.parent), "--overwrite"])

    def killed(folder, *args, **kwargs):
        if Path(folder).exists():
            (Path(folder) / "settings.json").unlink(missing_ok=True)
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        storage.open_project(settings, project.name)
    settings.lock.release()
    assert trial_files(project) == {}
    monkeypatch.undo()
    settings.overwrite = False
    storage.open_project(settings, project.name)
    settings.lock.release()
    assert [path.name for path in project.parent.iterdir() if path.is_dir()] == [project.name]
    assert [path.name for path in project.iterdir()] == ["settings.json"]


def test_no_file_of_a_search_can_run_code_when_it_is_loaded(stored):
    project = stored(RANDOM)
    keras.models.load_model(project / "best_model.keras", safe_mode=True)
    with zipfile.ZipFile(project / "best_model.keras") as archive:
        assert b"Lambda" not in archive.read("config.json")
    for path in project.rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".csv", ".png", ".keras")
    for path in ROOT.glob("*.py"):
        assert not re.search(r"pickle|joblib|\beval\(|safe_mode=False|Lambda\(", path.read_text())


# --- Interrupted ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_ends_as_if_it_had_not_been(start, run, stored, tmp_path):
    project = tmp_path / FOLDERS[BAYESIAN]
    before = {}
    for number, text, status, ended in (
        (signal.SIGINT, "Trial 2 of", 130, 1),
        (signal.SIGTERM, "Trial 5 of", 143, 4),
        (signal.SIGTERM, "Best model: trained", 143, TRIALS),
    ):
        process = start(BAYESIAN, *arguments(tmp_path))
        read_until(process, text)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert_one_line(errors, "the same command goes on")
        now = completed(project)
        assert len(now) >= ended and before.items() <= now.items()
        before = now
    process = run(BAYESIAN, *arguments(tmp_path))
    assert process.returncode == 0 and "Trial" not in process.stdout and "Best model: trained" in process.stdout
    assert before.items() <= completed(project).items()
    assert outcome(project) == outcome(stored(BAYESIAN))


def state(project):
    """The time and size of each state file, those half written included."""
    found = {}
    for path in (*project.glob("*.json"), *project.glob("*.keras"), *project.glob("trial_*/*")):
        with contextlib.suppress(FileNotFoundError):  # a draft that has just taken its place
            found[path] = path.stat().st_mtime_ns, path.stat().st_size
    return found


def wait_for_writes(process, project, count):
    """Waits until the state files have changed so often, or the process has ended."""
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
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command(script, *arguments(results_dir)), **options)
        if killed % 2:
            wait_for_writes(process, project, chance.randint(1, 20))
        else:
            read_until(process, "Precision: ")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.expovariate(1 / 2.5))
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
def test_twenty_kills_at_random_instants_lose_and_change_nothing(stored, tmp_path):
    expected = {script: outcome(stored(script)) for script in FOLDERS}
    with ThreadPoolExecutor() as pool:  # both strategies at once
        list(pool.map(lambda script: kill_and_resume(script, tmp_path / script, 20, expected[script]), FOLDERS))


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
    assert_one_line(errors, "the same command goes on")


def test_time_between_two_runs_is_not_counted(finished, start):
    project = finished(RANDOM)
    only_first_trials(project, TRIALS - 1)
    storage.write_json(project / "elapsed.json", {"seconds": 5000})
    os.utime(project / "elapsed.json", (0, 0))
    started = time.monotonic()
    read_until(start(RANDOM, *arguments(project.parent)), "Best model: trained")
    seconds = json.loads((project / "elapsed.json").read_text())["seconds"]
    assert 5000 < seconds < 5000 + time.monotonic() - started


@both
def test_a_finished_search_prints_the_same_result_without_training(script, finished, reference, run):
    project = finished(script)
    files, summary = trial_files(project), (project / "summary.json").read_bytes()
    process = run(script, *arguments(project.parent, "--workers", "2"))
    assert process.returncode == 0 and "Trial" not in process.stdout and "Epoch" not in process.stdout
    result = (reference(script) / "stdout.txt").read_text().partition("\nBest hyperparameters:")[2]
    assert result and process.stdout.partition("\nBest hyperparameters:")[2] == result
    assert trial_files(project) == files
    assert (project / "summary.json").read_bytes() == summary


def test_overwrite_begins_anew_and_another_seed_gives_another_trial(finished, start):
    project = finished(RANDOM)
    before = stored_trials(project)[0]
    read_until(start(RANDOM, *arguments(project.parent, "--overwrite", "--seed", "2")), "Best so far")
    trial = stored_trials(project)[0]
    assert trial["status"] == "COMPLETED" and not (project / "best_model.keras").exists()
    assert trial["hyperparameters"]["values"] != before["hyperparameters"]["values"]
    assert [path.name for path in project.parent.iterdir() if path.is_dir()] == [project.name]


@pytest.mark.slow
def test_a_search_with_damage_in_every_file_is_repaired(finished, stored, run):
    project = finished(BAYESIAN)
    files, best = trial_files(project), outcome(project)[1]["trial"] - 1
    lost = [number for number in range(TRIALS) if number != best][-2:]
    for path, name in {
        "settings.json": "half", "elapsed.json": "garbage", "summary.json": "a list", "trials.csv": "garbage",
        "best_model.keras": "half", "trial_0/build_config.json": "garbage",
        f"trial_{lost[0]}/trial.json": "all but one byte", f"trial_{lost[1]}/trial.json": "null",
    }.items():
        spoil(project / path, DAMAGE[name])
    process = run(BAYESIAN, *arguments(project.parent))
    assert process.returncode == 0, process.stderr
    for name in ("settings.json", "elapsed.json", "best_model.keras",
                 f"trial_{lost[0]}/trial.json", f"trial_{lost[1]}/trial.json"):
        assert str(project / name) in process.stdout
    assert outcome(project) == outcome(stored(BAYESIAN))
    changed = {name for name, content in trial_files(project).items() if content != files[name]}
    assert changed == {f"trial_{number}" for number in lost}


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


@pytest.mark.parametrize("size", [500, 2400, pytest.param(300_000, marks=pytest.mark.slow)])
def test_a_full_disk_ends_in_one_line_and_fails_no_trial(size, run, tmp_path):
    """The sizes are too small for settings.json, for a trial's file with its metrics, and for the best model."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = run(RANDOM, *arguments(tmp_path, "--max-trials", "1"), preexec_fn=limit)
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, os.strerror(errno.EFBIG), "the same command goes on")
    assert not list(tmp_path.rglob("*draft*"))  # half a file would take the room away
    assert not any(b"FAILED" in content for content in trial_files(tmp_path / FOLDERS[RANDOM]).values())


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mount is not permitted")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_search_goes_on_once_there_is_room_on_the_disk(small_disk, stored, run, start):
    project = small_disk / FOLDERS[RANDOM]
    process = run(RANDOM, *arguments(small_disk))
    assert process.returncode == 1
    assert_one_line(process.stderr, os.strerror(errno.ENOSPC), "the same command goes on")
    before = completed(project)
    assert len(before) == 1 and not any(b"FAILED" in content for content in trial_files(project).values())
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    read_until(start(RANDOM, *arguments(small_disk)), "Best model: trained")
    assert before.items() <= completed(project).items()
    reference = stored_trials(stored(RANDOM))
    assert {number: trial["score"] for number, trial in stored_trials(project).items()} == {
        number: trial["score"] for number, trial in reference.items()
    }


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


def test_a_chief_that_can_not_be_asked_is_not_the_trial_s_failure(finished, monkeypatch):
    project = finished(RANDOM)
    tuner = open_tuner(RANDOM, project)
    trial = tuner.oracle.trials["0"]
    trial.status = "INVALID"
    for name, value in zip(workers.VARIABLES, ("tuner0", "127.0.0.1", "8000")):
        monkeypatch.setenv(name, value)
    with pytest.raises(workers.WorkerError, match="the chief at 127.0.0.1:8000"):
        tuner.on_trial_end(trial)
    assert stored_trials(project)[0]["status"] == "COMPLETED"
    search.failure_file(project, trial).write_text("no room")
    tuner.on_trial_end(trial)
    assert (stored_trials(project)[0]["status"], stored_trials(project)[0]["message"]) == ("FAILED", "no room")


FAILING = """
import sys
import common
import keras
import random_search_tuning

build, units = common.CNN.build, set()

def build_or_fail(self, hp):
    units.add(hp.get("units"))
    if {all_fail} and len(units) > 1:  # not the default, which the tuner builds first
        raise ValueError("can't build this")
    model = build(self, hp)
    if len(units) == 3:
        raise ValueError("can't build this")
    if len(units) == 4:
        model.compile("sgd", lambda true, predicted: keras.ops.sum(predicted) * float("nan"), metrics=["accuracy"])
    return model

common.CNN.build = build_or_fail
random_search_tuning.main()
"""


@pytest.mark.slow
def test_failing_trials_are_reported_and_the_search_goes_on(run, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING.format(all_fail=False))
    options = arguments(tmp_path, "--max-trials", "4")
    process = run(tmp_path / "failing.py", *options, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.returncode == 0 and "Traceback" not in process.stderr, process.stderr
    rows = outcome(tmp_path / FOLDERS[RANDOM])[0]
    failed = {row["trial"]: row["message"] for row in rows if row["status"] == "FAILED"}
    assert set(failed) == {"2", "3"} and len(rows) == 4
    assert "can't build this" in failed["2"] and "the loss was nan in epoch 1" in failed["3"]
    for trial, reason in failed.items():
        assert f"Trial {trial} of 4: failed: {reason}" in process.stdout
        assert re.search(rf"^{trial} .* failed .*{re.escape(reason)}$", process.stdout, re.MULTILINE)


def test_a_search_whose_trials_all_fail_ends_in_one_line(run, tmp_path):
    (tmp_path / "failing.py").write_text(FAILING.format(all_fail=True))
    options = arguments(tmp_path, "--max-trials", "4")
    process = run(tmp_path / "failing.py", *options, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.returncode == 1
    assert_one_line(process.stderr, "all trials failed", "can't build this")
    assert process.stdout.count("failed: ValueError: can't build this") == 4
