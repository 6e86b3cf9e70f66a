"""The engine, unchanged, on another problem: see digits_tuning.py."""

import json
import os
import re

import pytest
from conftest import ROOT, read_until, run_in, trial_rows
from PIL import Image

SCRIPT = "tests/digits_tuning.py"
OPTIONS = ("--max-trials", "5", "--epochs", "4")
OPTIONS_OF = {"digits_random": OPTIONS, "digits_bayesian": (*OPTIONS, "--bayesian")}
HERE = {"env": os.environ | {"PYTHONPATH": str(ROOT)}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The results folder of both strategies' searches, and what each has printed."""
    folder = tmp_path_factory.mktemp("digits")
    outputs = {}
    for name, options in OPTIONS_OF.items():
        process = run_in(folder, SCRIPT, *options, **HERE)
        assert (process.returncode, process.stderr) == (0, "")
        outputs[name] = process.stdout
    return folder / "keras_tuner_results", outputs


@pytest.mark.parametrize("name", OPTIONS_OF)
def test_the_lowest_loss_wins_and_is_the_printed_model_s(searched, name):
    results_dir, outputs = searched
    rows = trial_rows(results_dir / name)
    losses = [float(row["val_loss"]) for row in rows]
    assert len(losses) == 5 and losses == sorted(losses) and losses[0] < losses[-1]
    proposers = sorted((int(row["trial"]), row["proposed_by"]) for row in rows)
    assert [proposer for _, proposer in proposers] == (
        ["random"] * 5 if name == "digits_random" else ["random"] * 3 + ["surrogate"] * 2
    )
    best = json.loads((results_dir / name / "summary.json").read_text())["best"]
    assert best["val_loss"] == pytest.approx(losses[0], rel=1e-3) and best["test_accuracy"] > 0.5
    assert re.search(
        r"\nBest hyperparameters:\n"
        rf"  hidden_layers: [123]\n  activation: (relu|tanh)\n  rate: {best['hyperparameters']['rate']:.3g}\n"
        rf"Best validation loss: {best['val_loss']:.4f} \(trial {rows[0]['trial']} of 5\)\n"
        rf"Test loss: {best['test_loss']:.4f}\n"
        r"Best 4 together: test loss 0\.\d{4}, validation loss 0\.\d{4}\n"
        r"Total elapsed time: 0h \d\dm \d\ds\n$",
        outputs[name],
    )


@pytest.mark.parametrize("name", OPTIONS_OF)
def test_pictures_are_drawn(searched, name):
    pictures = sorted(path.stem for path in (searched[0] / name).glob("*.png"))
    assert pictures == ["confusion_matrix", "hyperparameters", "learning_curves", "mistakes", "progress"]
    for path in (searched[0] / name).glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width == 900


def test_both_strategies_are_shown_side_by_side(searched):
    results_dir, outputs = searched
    assert re.search(r"\n +random search  Bayesian optimization\nbest validation loss  ", outputs["digits_bayesian"])
    assert (results_dir / "comparison.png").exists()


@pytest.mark.parametrize("name", OPTIONS_OF)
def test_a_killed_search_resumes_and_ends_as_if_nothing_had_happened(searched, start, run, tmp_path, name):
    for trial in 2, 4:
        process = start(SCRIPT, *OPTIONS_OF[name], **HERE)
        read_until(process, f"Trial {trial} of 5")
        process.kill()
        process.wait()
    process = run(SCRIPT, *OPTIONS_OF[name], **HERE)
    assert (process.returncode, process.stderr) == (0, "")
    assert "Trial 3 of" not in process.stdout and "Trial 5 of" in process.stdout
    assert trial_rows(tmp_path / "keras_tuner_results" / name) == trial_rows(searched[0] / name)


def test_workers_find_the_same(searched, run, tmp_path):
    process = run(SCRIPT, *OPTIONS, "--workers", "2", **HERE)
    assert (process.returncode, process.stderr) == (0, "")
    assert trial_rows(tmp_path / "keras_tuner_results" / "digits_random") == trial_rows(searched[0] / "digits_random")
