"""Whether memory grows from trial to trial: 30 short ones, and the resident memory of the process after each.

    python benchmarks/memory.py

Prints a Markdown table, the growth after the fifth trial and the peak. About 3 minutes, whatever else runs on the
machine. Linux only: it reads /proc.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import ROOT, machine, table

TRIALS = 30


def main():
    resident = []
    with tempfile.TemporaryDirectory() as folder:
        options = ["--max-trials", str(TRIALS), "--train-images", "2000", "--epochs", "1", "--results-dir", folder]
        process = subprocess.Popen(
            [sys.executable, ROOT / "random_search_tuning.py", *options], stdout=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            if line.startswith("Best so far"):  # a trial has ended
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"the search failed with status {os.waitstatus_to_exitcode(status)}")
        summary = json.loads(next(Path(folder).glob("*/summary.json")).read_text())
    print(f"{machine(summary['hardware'], summary['versions'])}\n")
    print(table(["after trial", "resident memory, MB"], [
        [number, f"{resident[number - 1]:.0f}"] for number in (1, *range(5, TRIALS + 1, 5))
    ]))
    print(f"\nGrowth from trial 5 to {TRIALS}: {resident[-1] / resident[4] - 1:+.1%}; "
          f"peak {usage.ru_maxrss * 1024 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
