"""The same result, or one clear line, whatever surrounds a search."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupyter_client.manager
import pytest
from conftest import FOLDERS, RANDOM, ROOT, SMALL, assert_one_line, command, result, trial_rows, trials
from machine import as_nobody_in_container, data_folder

TINY = (*SMALL, "--max-trials", "2", "--workers", "1")  # the first two trials of the reference


def project(folder):
    return folder / "keras_tuner_results" / FOLDERS[RANDOM]


@pytest.fixture
def undisturbed(stored):
    """The trials of a TINY search that nothing disturbs."""
    found = trials(stored(RANDOM))
    return {number: found[number] for number in (1, 2)}


@pytest.fixture
def other_programs(tmp_path):
    """The variables of a process whose environment, home and working directory are full of others' settings."""
    home, settings = tmp_path / ".keras", {"image_data_format": "channels_first", "floatx": "float64"}
    home.mkdir()
    (home / "datasets").symlink_to(data_folder().parent)
    (home / "keras.json").write_text(json.dumps(settings | {"backend": "jax"}))
    (tmp_path / "matplotlibrc").write_text("backend: qtagg\naxes.facecolor: red\nfont.size: 40\ntext.usetex: True\n")
    return os.environ | {
        "KERAS_HOME": str(home),
        "KERAS_BACKEND": "jax",
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONOPTIMIZE": "2",
        "OMP_NUM_THREADS": "3",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter sets it for all that it starts
    }


def test_no_setting_of_another_program_changes_a_result(finished, stored, reference, run, other_programs):
    search = finished(RANDOM)
    pictures = {path: path.read_bytes() for path in search.glob("*.png")}
    assert len(pictures) == 3
    lost = sorted(row["trial"] for row in trial_rows(search)[-2:])
    for path in (*pictures, *(search / f"trial_{number}" / "trial.json" for number in lost)):
        path.unlink()
    process = run(RANDOM, *SMALL, "--workers", "1", env=other_programs)
    assert (process.returncode, process.stderr) == (0, "")
    assert re.findall(r"\nTrial (.), epoch 1:", process.stdout) == lost
    assert trials(search) == trials(stored(RANDOM))
    assert result(process.stdout) == result((reference(RANDOM) / "stdout.txt").read_text())
    assert pictures == {path: path.read_bytes() for path in pictures}


TELL = """
from tuning.environment import os, tf
tf.constant(1) + 1
print(tf.config.threading.get_intra_op_parallelism_threads(), tf.config.threading.get_inter_op_parallelism_threads())
print(*(os.environ[f"TF_{name}"] for name in ("NUM_INTRAOP_THREADS", "NUM_INTEROP_THREADS", "ENABLE_ONEDNN_OPTS")))
"""


def test_what_a_user_tells_tensorflow_is_left_alone():
    wishes = {"TF_NUM_INTRAOP_THREADS": "3", "TF_NUM_INTEROP_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
    process = subprocess.run([sys.executable, "-c", TELL], cwd=ROOT, env=os.environ | wishes, capture_output=True)
    threads, variables = process.stdout.decode().splitlines()
    assert threads in ("0 0", "3 2") and variables == "3 2 0"  # 0 0: TensorFlow asks the variables itself


def test_a_package_that_a_trial_can_not_import_ends_the_search_in_its_own_words(run, tmp_path):
    code = (
        "import sys\nclass Broken:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tensorboard': raise ImportError('No module named tensorboard')\n"
        "sys.meta_path.insert(0, Broken())"
    )
    (tmp_path / "sitecustomize.py").write_text(code)
    process = run(RANDOM, *TINY, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, "No module named tensorboard")
    assert not trials(project(tmp_path))  # no trial is said to have failed


@pytest.fixture
def notebook(tmp_path):
    """notebook(code): the status and the output of a cell in a Jupyter notebook, stopped at this text of its output."""
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(tmp_path))

    def notebook(code, stop_at=None):
        output = []

        def receive(message):
            output.append(message["content"].get("text", ""))
            if stop_at and stop_at in output[-1]:
                manager.interrupt_kernel()

        answer = client.execute_interactive(code, timeout=300, output_hook=receive)
        return answer["content"]["status"], "".join(output)

    yield notebook
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_notebook_outlives_errors_and_resumes_a_cell(notebook, undisturbed, tmp_path):
    for name in (RANDOM, "common.py", "tuning"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    notebook("import tensorflow as tf\ntf.constant(1) + 1")  # threads can't be set any more
    _, output = notebook(f"%run {RANDOM} --max-trials 0")
    assert "argument --max-trials: must be" in output and "Traceback" not in output
    cell = f"%run {RANDOM} {' '.join(SMALL)} --max-trials 2"
    _, output = notebook(cell, stop_at="Trial 1, epoch 1")
    assert "interrupted. Ended trials are kept" in output and "Test accuracy" not in output
    assert "Traceback" not in output
    status, output = notebook(cell)
    assert (
        status == "ok" and "\nTest accuracy" in output and "Waiting for" not in output and "has ended" not in output
    ), output
    tried = {number: values for number, (values, _) in trials(project(tmp_path)).items()}
    assert tried == {number: values for number, (values, _) in undisturbed.items()}  # scores depend on the threads
    assert notebook("print(6 * 7)") == ("ok", "42\n")


def test_a_user_without_a_name_and_a_home_needs_one_writable_folder(undisturbed):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        os.chmod(folder, 0o777)
        search = as_nobody_in_container(folder)
        search += command(RANDOM, *TINY, "--results-dir", f"{folder}/keras_tuner_results")
        options = {"cwd": "/", "capture_output": True, "text": True, "timeout": 300}
        variables = {"KERAS_HOME": str(data_folder().parents[1]), "MPLCONFIGDIR": ""}
        process = subprocess.run(search, env=os.environ | variables | {"TMPDIR": ""}, **options)
        assert process.returncode == 1 and process.stdout == ""
        assert_one_line(process.stderr, "temporary directory")
        process = subprocess.run(search, env=os.environ | variables | {"TMPDIR": folder}, **options)
        assert (process.returncode, process.stderr) == (0, "")
        assert trials(project(Path(folder))) == undisturbed
