"""The same result, or one clear line, whatever surrounds a search: what the environment and the home directory hold for
other programs, how it is started, and where its results lie."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jupyter_client.manager
import pytest
from conftest import FOLDERS, RANDOM, ROOT, SMALL, assert_one_line, command, result, trials
from machine import as_nobody, data_folder, in_container

TINY = (*SMALL, "--max-trials", "2")  # the first two trials of the reference


def project(folder):
    return folder / "keras_tuner_results" / FOLDERS[RANDOM]


@pytest.fixture
def undisturbed(reference):
    """The trials of a TINY search that nothing disturbs."""
    found = trials(project(reference(RANDOM)))
    return {number: found[number] for number in (1, 2)}


@pytest.fixture
def finished(reference, tmp_path):
    """A copy of a finished search in the test's folder; its result, as it was printed."""
    shutil.copytree(reference(RANDOM) / "keras_tuner_results", tmp_path / "keras_tuner_results")
    return result((reference(RANDOM) / "stdout.txt").read_text())


@pytest.fixture
def disturb(tmp_path):
    """disturb(code): the variables of a process that runs this Python code before it does anything else."""

    def disturb(code):
        (tmp_path / "sitecustomize.py").write_text(code)
        return os.environ | {"PYTHONPATH": str(tmp_path)}

    return disturb


# --- Settings of other programs ---------------------------------------------------------------------------------------


@pytest.fixture
def other_programs(tmp_path):
    """The variables of a process whose environment, home and working directory are full of others' settings."""
    home, settings = tmp_path / ".keras", {"image_data_format": "channels_first", "floatx": "float64", "epsilon": 0.1}
    home.mkdir()
    (home / "datasets").symlink_to(data_folder().parent)
    (home / "keras.json").write_text(json.dumps(settings | {"backend": "jax"}))
    style = b"backend: qtagg\naxes.facecolor: red\nfont.size: 40\ntext.usetex: True\n"
    (tmp_path / "matplotlibrc").write_bytes(style)
    return os.environ | {
        "KERAS_HOME": str(home),
        "KERAS_BACKEND": "jax",
        "TF_USE_LEGACY_KERAS": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "OMP_NUM_THREADS": "3",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter sets it for all that it starts
    }


def test_no_setting_of_another_program_changes_a_digit(run, undisturbed, tmp_path, other_programs):
    process = run(RANDOM, *TINY, env=other_programs)
    assert (process.returncode, process.stderr) == (0, "")
    assert trials(project(tmp_path)) == undisturbed


def test_no_setting_of_another_program_changes_a_result_or_a_picture(finished, run, tmp_path, other_programs):
    pictures = sorted(project(tmp_path).glob("*.png"))
    before = [path.read_bytes() for path in pictures]
    for path in pictures:
        path.unlink()
    process = run(RANDOM, *SMALL, env=other_programs)
    assert (process.returncode, process.stderr) == (0, "")
    assert result(process.stdout) == finished
    assert len(before) == 5 and [path.read_bytes() for path in pictures] == before


def test_what_a_user_tells_tensorflow_is_left_alone(tmp_path):
    wishes = {"TF_NUM_INTRAOP_THREADS": "3", "TF_NUM_INTEROP_THREADS": "2", "TF_ENABLE_ONEDNN_OPTS": "0"}
    code = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tuning.environment import tf\n"
        "threading = tf.config.threading\n"
        "tf.constant(1) + 1\n"
        "print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())\n"
        f"print(*(os.environ[name] for name in {[*wishes]}))\n"
    )
    process = subprocess.run([sys.executable, "-c", code], env=os.environ | wishes, capture_output=True, text=True)
    threads, variables = process.stdout.splitlines()
    assert threads in ("0 0", "3 2") and variables == "3 2 0"  # 0 0: TensorFlow asks the variables itself


@pytest.mark.parametrize("package, error, words", [
    ("tensorboard", "ImportError('No module named tensorboard')", "No module named tensorboard"),
    ("sklearn", "ImportError('libgomp.so.1: cannot allocate memory')", "libgomp.so.1: cannot allocate memory"),
    ("tensorflow", "RuntimeError('can\\'t start new thread')", "can't start new thread"),
    ("joblib", "OSError(12, 'Cannot allocate memory')", "Cannot allocate memory"),
], ids=["tensorboard", "sklearn", "tensorflow", "joblib"])  # fmt: skip
def test_a_package_that_can_not_be_imported_ends_the_search_in_its_own_words(
    run, tmp_path, disturb, package, error, words
):
    code = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise {error}
sys.meta_path.insert(0, Broken())
"""
    process = run(RANDOM, *TINY, env=disturb(code))
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, words)
    assert not trials(project(tmp_path))  # no trial is said to have failed


# --- How it is started ------------------------------------------------------------------------------------------------


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


def test_a_notebook_outlives_a_bad_option_and_an_interrupted_cell_is_resumed_by_the_same_cell(
    notebook, undisturbed, tmp_path
):
    notebook("import tensorflow as tf\ntf.constant(1) + 1")  # threads can't be set any more
    _, output = notebook(f"%run {ROOT / RANDOM} --max-trials 0")
    assert "argument --max-trials: must be" in output and "Traceback" not in output
    cell = f"%run {ROOT / RANDOM} {' '.join(TINY)}"
    _, output = notebook(cell, stop_at="Trial 1, epoch 1")
    assert "interrupted. Ended trials are kept" in output and "Test accuracy" not in output
    assert "Traceback" not in output
    status, output = notebook(cell)
    assert status == "ok" and "\nTest accuracy" in output and "Waiting for" not in output, output
    if "restart the kernel" not in output:
        assert {number: values for number, (values, _) in trials(project(tmp_path)).items()} == {
            number: values for number, (values, _) in undisturbed.items()
        }
    assert notebook("print(6 * 7)") == ("ok", "42\n")


def test_in_a_notebook_the_common_py_that_was_just_edited_is_used(notebook, tmp_path):
    for name in (RANDOM, "common.py", "tuning"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    cell = f"%run {RANDOM} {' '.join(TINY)} --max-trials 1 --epochs 1 --workers 1"
    assert "units" in notebook(cell)[1]
    text = (tmp_path / "common.py").read_text()
    (tmp_path / "common.py").write_text(text.replace('hp.Int("units"', 'hp.Int("neurons"'))
    _, output = notebook(cell)
    assert "neurons" in output and "--overwrite" in output  # it is another search space


def test_standard_streams_may_be_closed(finished, tmp_path):
    summary = project(tmp_path) / "summary.json"
    summary.unlink()
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" 0>&- 1>&- 2>&-', "sh", *command(RANDOM, *SMALL)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (process.returncode, process.stderr, process.stdout) == (0, "", "")
    assert summary.exists()


def test_a_user_without_a_name_and_a_home_can_search(undisturbed):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is closed to others
        folder = Path(folder)
        folder.chmod(0o777)
        (folder / "datasets").mkdir()
        (folder / "datasets" / "fashion-mnist").symlink_to(data_folder())
        process = subprocess.run(
            [*as_nobody(), *command(RANDOM, *TINY)], cwd=folder, env=os.environ | {"KERAS_HOME": str(folder)},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (process.returncode, process.stderr) == (0, "")
        assert trials(project(folder)) == undisturbed


# --- Where the results lie --------------------------------------------------------------------------------------------


def test_a_read_only_container_needs_one_writable_folder(finished, tmp_path):
    tmp_path.chmod(0o755)
    variables = {"HOME": "/nowhere", "KERAS_HOME": str(data_folder().parents[1]), "MPLCONFIGDIR": ""}
    process = subprocess.run(
        [*in_container(tmp_path), *command(RANDOM, *SMALL, "--max-trials", "7")], cwd=tmp_path,
        env=os.environ | variables, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    assert "Trial 7 of 7: val_accuracy" in process.stdout


def test_without_a_temporary_folder_a_search_works_or_one_line_names_the_variable_to_set(finished, tmp_path):
    options = {"cwd": "/", "capture_output": True, "text": True, "timeout": 300}
    search = [*in_container(tmp_path), *command(RANDOM, *SMALL, "--results-dir", tmp_path / "keras_tuner_results")]
    process = subprocess.run(search, **options)
    if process.returncode:
        assert_one_line(process.stderr, "TMPDIR")
        folders = {"TMPDIR": str(tmp_path), "KERAS_HOME": str(data_folder().parents[1])}
        process = subprocess.run(search, env=os.environ | folders, **options)
    assert (process.returncode, process.stderr) == (0, "") and result(process.stdout) == finished


def test_a_file_system_that_does_not_know_fsync_is_used(finished, run, tmp_path, disturb):
    (project(tmp_path) / "summary.json").unlink()
    code = "import os\ndef fsync(file):\n    raise OSError(22, 'Invalid argument')\nos.fsync = os.fdatasync = fsync"
    process = run(RANDOM, *SMALL, env=disturb(code))
    assert (process.returncode, process.stderr) == (0, "")
    assert (project(tmp_path) / "summary.json").exists()
