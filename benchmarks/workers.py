"""What --workers 2 gains over one: trials per hour of the same random search, and the memory of each process.

    python benchmarks/workers.py [--max-trials 10]

Prints a Markdown table. Linux only: it reads /proc. Nothing else should run on the machine.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def peak_memory(pid):
    """The peak resident memory of a running process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def watch(process, peaks):
    """Keeps the peak memory of a process and of those that it started, by process id, until it ends."""
    while process.poll() is None:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in (process.pid, *map(int, children)):
                peaks[pid] = peak_memory(pid)
        except (OSError, StopIteration):  # it has just ended
            pass
        time.sleep(0.5)


def measure(workers, max_trials):
    """Runs a search; returns the seconds until its last trial has ended and the peak memory of each process."""
    with tempfile.TemporaryDirectory() as folder:
        # The trials are those of the full search; the best model's training, which is not shared, is cut short.
        options = ["--workers", workers, "--max-trials", max_trials, "--epochs", 4, "--results-dir", folder]
        command = [sys.executable, ROOT / "random_search_tuning.py", *map(str, options)]
        started, peaks = time.monotonic(), {}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=watch, args=(process, peaks)).start()
        for line in process.stdout:
            if line.startswith("Best model"):
                break
        seconds = time.monotonic() - started
        process.communicate()
        if process.returncode:
            sys.exit(f"the search failed with status {process.returncode}")
    return seconds, peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-trials", type=int, default=10)
    max_trials = parser.parse_args().max_trials
    print("| workers | trials per hour | peak memory of each process, GB |\n| --- | --- | --- |")
    rates = []
    for workers in (1, 2):
        seconds, peaks = measure(workers, max_trials)
        rates.append(max_trials / seconds * 3600)
        print(f"| {workers} | {rates[-1]:.1f} | {', '.join(f'{peak / 1e9:.2f}' for peak in peaks.values())} |")
    print(f"\nTwice the workers, {rates[1] / rates[0]:.2f} times the trials per hour")


if __name__ == "__main__":
    main()
