"""The scripts as a person uses them: options, output, and how they end."""

import errno
import fcntl
import json
import os
import pty
import re
import resource
import shlex
import signal
import struct
import subprocess
import termios

import pytest
from conftest import DIGITS, FOLDERS, RANDOM, SMALL, assert_one_line, command, outcome, result, trials, wait_until
from machine import at_work

both = pytest.mark.parametrize("script", FOLDERS)
TRIALS = int(SMALL[-1])
TINY = ("--epochs", "2", "--max-trials", "2", "--workers", "1")


@both
@pytest.mark.parametrize("options, status", [(["--help"], 0), (["--max-trials", "many"], 2)])
def test_help_and_a_wrong_option_answer_before_anything_slow_is_imported(script, options, status):
    python, *rest = command(script, *options)
    process = subprocess.run([python, "-X", "importtime", *rest], capture_output=True, text=True)
    imported = {line.split("|")[2].strip() for line in process.stderr.splitlines() if line.startswith("import time:")}
    assert process.returncode == status and "argparse" in imported
    assert not {"tensorflow", "keras", "keras_tuner", "numpy", "joblib", "sklearn", "matplotlib", "rich"} & imported


REFUSED = {
    "--max-trials=0": "--max-trials: must be a whole number of at least 1, not '0'",
    "--epochs=many": "--epochs: must be a whole number of at least 1, not 'many'",
    "--workers=-1": "--workers: must be a whole number of at least 0, not '-1'",
    "--train-images=48001": "--train-images: must be a whole number from 4 to 48000, not '48001'",
    "--seed=0": "--seed: must be a whole number from 1 to",
    "--precision=float8": "--precision: invalid choice: 'float8'",
    "--initial-points=4": "unrecognized arguments: --initial-points=4",
    "--max=3": "unrecognized arguments: --max=3",
}


@pytest.mark.parametrize("option, named", REFUSED.items(), ids=REFUSED)
def test_a_wrong_option_is_named_in_one_line_with_status_2(option, named, run, tmp_path):
    process = run(RANDOM, option)
    assert (process.returncode, process.stdout) == (2, "") and not [*tmp_path.iterdir()]
    assert_one_line(process.stderr, f"{RANDOM}: ", named)


@both
def test_output_into_a_file_has_each_epoch_s_and_trial_s_digits_and_the_result_and_no_noise(reference, stored, script):
    output = (reference(script) / "stdout.txt").read_text()
    assert (reference(script) / "stderr.txt").read_text() == "" and re.sub(r"[ -~\n]", "", output) == ""
    assert re.search(r"\nTest accuracy: 0\.\d{4}\nBest 4 together: test accuracy 0\.\d{4}, ", result(output))
    assert re.match(r"\d+ CPU cores? \(.+\), (bfloat16|float32), \d trials? at a time\n|.*GPU", output)
    for trial in json.loads((stored(script) / "summary.json").read_text())["trials"]:
        number, accuracies = trial["trial"], trial["curves"]["val_accuracy"]
        for epoch, accuracy in enumerate(accuracies, start=1):
            assert output.count(f"Trial {number}, epoch {epoch}: val_accuracy {accuracy:.4f}, ") == 1
        score = f"val_accuracy {max(accuracies):.4f} in epoch {trial['best_epoch']} of {len(accuracies)}"
        assert output.count(f"Trial {number} of {TRIALS}: units {trial['hyperparameters']['units']}, dropout ") == 1
        assert output.count(f"Trial {number} of {TRIALS}: {score}, 0h ") == 1
    assert re.search(rf"\n[1-5] of {TRIALS} trials ended, best so far 0\.\d{{4}} \(trial \d\), about 0h", output)
    best = [float(score) for score in re.findall(r"best so far (0\.\d{4}) \(trial", output)]
    assert best == sorted(best) and 1 < len(best) <= TRIALS  # trials that end in the same second share a line


def test_a_terminal_shows_bars_and_no_lines_of_epochs_and_keeps_its_cursor(start):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "env": variables | {"TERM": "xterm-256color"}}
    process, output = start(DIGITS, "--epochs", "200", "--max-trials", "2", "--workers", "2", **streams), b""
    os.close(theirs)
    with pytest.raises(OSError):  # once the process has closed its side
        while part := os.read(ours, 10_000):
            output += part
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output.decode())
    assert process.wait() == 0 and "Total elapsed time: 0h" in text and not re.search(r"Trial \d, epoch", text)
    for shown in (r"search +━+ [01] of 2", r"trial 1 +━+ .*epoch \d+", r"trial 2 +━+ .*epoch \d+"):
        assert re.search(shown, text)  # this process' own trial and the other one's
    assert output.rfind(b"\x1b[?25h") >= output.rfind(b"\x1b[?25l")


def test_a_finished_search_prints_the_same_result_and_trains_nothing(finished, stored, reference, run):
    search = finished(RANDOM)
    process = run(RANDOM, *SMALL, "--workers", "3", "--max-trials", "2")
    assert (process.returncode, process.stderr) == (0, "")
    assert ", epoch" not in process.stdout and "at a time" not in process.stdout
    before = (reference(RANDOM) / "stdout.txt").read_text()
    assert result(process.stdout) == result(before) and outcome(search) == outcome(stored(RANDOM))


def test_no_workers_only_show_the_trials_that_ended_and_those_that_run(start, run, tmp_path):
    options, search = ("--epochs", "100000", "--max-trials", "4"), tmp_path / "keras_tuner_results" / "digits"
    start(DIGITS, *options, "--workers", "1")
    wait_until(lambda: any(search.glob("trial_1/run_*/epochs.jsonl")))
    state = json.loads((search / "trial_1" / "trial.json").read_text())
    interrupted = state | {"trial_id": "2", "process": "elsewhere, process 1, 12345678"}
    for number, other in {2: interrupted, 3: state | {"trial_id": "3", "status": "COMPLETED", "score": 0.25}}.items():
        (search / f"trial_{number}").mkdir()
        (search / f"trial_{number}" / "trial.json").write_text(json.dumps(other))
    process = run(DIGITS, *options, "--workers", "0")
    assert (process.returncode, process.stderr) == (0, "")
    header, one, three = process.stdout.splitlines()
    assert header.split("  ")[0] == "trial" and re.match("1 .* running ", one) and re.match("3 .* 0.2500 ", three)


# Who is killed by a signal has the status 128 + its number in a shell, and minus its number in Python.
signals = pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, -15)])


@signals
def test_a_signal_ends_all_processes_of_a_search_in_one_line_and_keeps_what_has_ended(number, status, start, tmp_path):
    process = start(DIGITS, "--epochs", "5", "--max-trials", "100", "--workers", "2", start_new_session=True)
    search = tmp_path / "keras_tuner_results" / "digits"
    wait_until(lambda: search.exists() and trials(search))
    before = trials(search)
    # Ctrl-C is for all of them, and must not get lost in what Python calls when an object is deleted.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == status and before.items() <= trials(search).items()
    assert ("interrupted. Ended trials are kept: the same command goes on" in errors) == (number == signal.SIGINT)
    assert len(errors.splitlines()) == (number == signal.SIGINT)
    wait_until(lambda: not at_work(DIGITS))


@signals
def test_a_signal_while_tensorflow_is_imported_ends_without_a_traceback(number, status, start):
    process = start(RANDOM, *SMALL)
    wait_until(lambda: "_pywrap_tensorflow" in open(f"/proc/{process.pid}/maps").read())
    process.send_signal(number)
    assert "Traceback" not in process.communicate(timeout=60)[1] and process.returncode == status


def test_a_reader_that_goes_away_ends_the_search_in_one_line(tmp_path):
    shell = f"{shlex.join(command(DIGITS, *TINY, '--max-trials', 50))} | head -n 2"
    process = subprocess.run(["bash", "-o", "pipefail", "-c", shell], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 1 and len(process.stdout.splitlines()) == 2
    assert_one_line(process.stderr, "nobody reads the output any more", "the same command goes on")


@pytest.mark.parametrize("size", [1500, 10_000])
def test_a_full_disk_ends_the_search_in_one_line_and_fails_no_trial(size, run, tmp_path):
    """The sizes are too small for a trial's file, and for a checkpoint, which HDF5 can't close."""
    process = run(DIGITS, *TINY, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert process.returncode == 1 and "failed" not in process.stdout
    assert_one_line(process.stderr, os.strerror(errno.EFBIG))
    search = tmp_path / "keras_tuner_results"
    assert not [*search.glob("*/trial_*/trial_*.json"), *search.glob("*/settings_*")]  # half a file takes room away
    assert not any('"FAILED"' in path.read_text() for path in search.rglob("trial.json"))


def test_a_folder_that_can_not_be_written_is_named_in_one_line(run, tmp_path):
    (tmp_path / "a_file").touch()
    process = run(DIGITS, "--results-dir", "a_file")
    assert process.returncode == 1 and process.stdout == ""
    assert_one_line(process.stderr, os.strerror(errno.ENOTDIR), "a_file")
