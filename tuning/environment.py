"""Sets up TensorFlow and Keras, which others import from here, knows the hardware, and starts more processes on it."""

import contextlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

# What a search needs, whatever keras.json and the environment say; TensorFlow's own variables stay the user's.
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"}
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # digits depend on it, and must not on the number of cores
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as a Python exception
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default with AVX2 only: a step takes 1.2 times as long
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes may share a GPU
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says where its cache is

_stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow's C++ code logs to it while it starts, whatever its log level
try:
    import joblib
    import keras
    import keras_tuner as kt
    import numpy as np
    import psutil
    import tensorflow as tf

    GPUS = tf.config.list_physical_devices("GPU")
finally:
    os.dup2(_stderr, 2)

if not GPUS:  # one thread for each process: digits depend neither on cores nor on how many trials run at a time
    with contextlib.suppress(RuntimeError):  # in a notebook in which TensorFlow has run, they can't be set any more
        tf.config.threading.set_intra_op_parallelism_threads(int(os.environ.get("TF_NUM_INTRAOP_THREADS", 1)))
        tf.config.threading.set_inter_op_parallelism_threads(int(os.environ.get("TF_NUM_INTEROP_THREADS", 1)))

PROCESSES_PER_GPU, BYTES_PER_PROCESS = 4, 1e9  # a small network leaves most of a GPU idle
CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""  # on Linux
VERSIONS = {module.__name__: module.__version__ for module in (tf, keras, kt, np)}  # a result depends on them

keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")
# Private: KerasTuner prints a traceback of each failed trial. We report it, but its chief can't know of its workers'.
kt.src.config.DEBUG = "KERASTUNER_TUNER_ID" in os.environ
tf.get_logger().setLevel("ERROR")  # it warns of a graph for each trial, which is what a search needs

_Optimizer = keras.optimizers.Optimizer
_sum = _Optimizer._all_reduce_sum_gradients
# Private, and the only way: to sum the gradients of several devices, TensorFlow registers a function for good, and with
# it the graph of each training: 16 MB a trial (variants.py memory). Without a strategy, there is nothing to sum.
_Optimizer._all_reduce_sum_gradients = lambda self, grads: _sum(self, grads) if tf.distribute.has_strategy() else grads


def fastest_precision():
    """The dtype policy with the fastest training step on this hardware, by asking the hardware."""
    if not GPUS:  # without instructions for bfloat16 it is emulated, ten times slower
        return "mixed_bfloat16" if re.search(" (avx512|amx)_bf16", CPU) else "float32"
    capability = tf.config.experimental.get_device_details(GPUS[0]).get("compute_capability", (0, 0))  # tensor cores
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"


def most_processes():
    """How many processes this machine can run at a time: by its cores or GPUs, and by its memory."""
    memory, limit = psutil.virtual_memory().available, Path("/sys/fs/cgroup/memory.max")  # the latter a container's
    if limit.exists() and limit.read_text().strip().isdecimal():
        memory = min(memory, int(limit.read_text()))
    cores = joblib.cpu_count()  # knows affinity and a container's quota
    return max(1, min(cores, len(GPUS) * PROCESSES_PER_GPU or cores, int(memory / BYTES_PER_PROCESS)))


def hardware():
    """What this process runs on: the names of the GPUs, or how many cores it may use of which processor."""
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in GPUS]
    cores, name = joblib.cpu_count(), re.search("model name[^:]*: (.*)", CPU)
    return ", ".join(gpus) or f"{cores} CPU core{'s' * (cores > 1)} ({name[1] if name else platform.processor()})"


def announce(precision, at_a_time):
    """Says on what a search runs, and what is slow about it."""
    if not GPUS and shutil.which("nvidia-smi"):
        print("TensorFlow does not see this machine's NVIDIA GPU: pip install 'tensorflow[and-cuda]' brings CUDA")
    if precision == "mixed_bfloat16" and fastest_precision() == "float32":
        print("This search was started in bfloat16, which this processor computes in software, some ten times slower")
    print(f"{hardware()}, {precision.removeprefix('mixed_')}, {at_a_time} trial{'s' * (at_a_time > 1)} at a time")


IS_CHILD = "TUNING_STARTED_BY" in os.environ  # another process has started this one
if IS_CHILD:  # its standard input is a pipe of the starter's, which closes when that is gone, whatever ended it
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()


@contextlib.contextmanager
def started(count):
    """Keeps so many more processes at work; a context manager. One that dies is named; the others take its trial."""
    command = [sys.executable, *(each for each in sys.argv if each != "--overwrite")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(GPUS))))).split(",")
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    options |= {"text": True, "errors": "replace", "start_new_session": True}  # Ctrl-C is for this process alone
    children = []

    def watch(child):
        errors = child.stderr.read().split("\n")
        if child.wait() and child in children:
            reason = next(filter(None, reversed(errors)), f"killed by signal {-child.returncode}")
            print(f"Process {child.pid} of this search has ended, the others take its trial: {reason}")

    try:
        for number in range(1, count + 1):
            gpu = {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} if GPUS else {}
            variables = os.environ | {"TUNING_STARTED_BY": str(os.getpid())} | gpu
            children.append(subprocess.Popen(command, env=variables, **options))
            threading.Thread(target=watch, args=children[-1:], daemon=True).start()
        yield
    finally:
        while children:  # they have nothing left to do, or this process was interrupted
            children.pop().kill()
