"""Kills processes of searches at random instants, and compares the end with an undisturbed search's: every digit.

python benchmarks/kills.py [KILLS] kills so many (40): first, started and joined processes, of 1, 2 and 3. The line of
a search says who was killed after how many of the six trials (6: in the report). Exits 1 where one ended otherwise.
"""

import functools
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SCRIPTS = "random_search_tuning.py", "bayesian_tuning.py"
OPTIONS = ("--epochs", "2", "--train-images", "400", "--max-trials", "6")
NAMES = "first", "started", "joined"  # the processes of a search, as many as there are
chance = random.Random(7)


def trials(folder):
    """What each ended trial has tried and reached, and its checkpoint, by their numbers."""
    found = {path.parent: json.loads(path.read_text()) for path in Path(folder).glob("*/*/trial_*/trial.json")}
    return {int(state["trial_id"]): (state["proposed"], state["score"], path / state["run"] / "checkpoint.weights.h5")
            for path, state in found.items() if state["status"] == "COMPLETED"}  # fmt: skip


def outcome(folder):
    """The digits of all trials, and the SHA-256 of the best one's weights."""
    found, (summary,) = trials(folder), Path(folder).glob("*/*/summary.json")
    weights = found[json.loads(summary.read_text())["best"]["trial"]][2].read_bytes()
    return {number: trial[:2] for number, trial in found.items()}, hashlib.sha256(weights).hexdigest()


def disturbed(script, folder, processes, kills):
    """Starts a search until it ends, and kills one of its processes so often. Returns whom, and the exit statuses."""
    command = [sys.executable, Path(__file__).parents[1] / script, *OPTIONS]
    start = functools.partial(psutil.Popen, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed, running, kill_at = [], [], None
    after = sorted(chance.choices([*range(-1, 7), 6], k=kills))  # so many trials, and some seconds; -1: in the import
    while True:
        if not running:
            running = [("first", start([*command, *(["--workers", "2"] if processes > 1 else [])]))]
            if processes == 1:  # of its own accord, on one core; --workers 1 is another search for the Bayesian one
                running[0][1].cpu_affinity([min(os.sched_getaffinity(0))])
        if processes == 3 and len(running) == 1 and any(Path(folder).glob("*/*/trial_1")):
            running.append(("joined", start([*command, "--workers", "1"])))
        time.sleep(0.02)
        victims = [(name, process) for name, process in running if process.poll() is None]
        if not victims:
            return killed, {process.returncode for _, process in running}
        count = len(trials(folder))
        if not kill_at and after and count >= after[0]:
            kill_at, target = time.monotonic() + chance.uniform(0, 3), chance.choice(NAMES[:processes])
        victims += [("started", child) for _, process in victims for child in process.children()]
        victims = [victim for name, victim in victims if kill_at and name == target]
        if victims and time.monotonic() > kill_at:
            name, victim = target, chance.choice(victims)
            victim.kill(), victim.wait()
            running = [each for each in running if each[1] is not victim]
            killed, after, kill_at = [*killed, f"{name} after {count}"], after[1:], None


left, wanted, all_well = int(sys.argv[1]) if sys.argv[1:] else 40, {}, True
for processes, script in itertools.cycle(itertools.product((1, 2, 3), SCRIPTS)):
    with tempfile.TemporaryDirectory() as folder:
        killed, statuses = disturbed(script, folder, processes, min(left, 3) if script in wanted else 0)
        same = statuses == {0} and outcome(folder) == wanted.setdefault(script, outcome(folder))
    left, all_well = left - len(killed), all_well and same
    print(f"{script}, {processes}: {', '.join(killed) or 'undisturbed'}:", "same" if same else "DIFFERENT", flush=True)
    if left <= 0:
        sys.exit(not all_well)
