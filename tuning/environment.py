"""Sets up TensorFlow and Keras before anything else imports them, and knows the hardware.

The other files import keras, kt, np and tf from here, so that none of them can come too early.
"""

import contextlib
import logging
import os
import platform
import shutil
from pathlib import Path

# What a search needs, whatever keras.json and the environment say; TensorFlow's own variables stay the user's.
os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"}
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # digits depend on it, and must not on the number of cores
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as a Python exception
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default with AVX2 only: a step takes 1.2 times as long
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

PROCESSES_PER_GPU = 4  # a small network leaves most of a GPU idle
BYTES_PER_PROCESS = 1e9

keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")
keras.config.set_epsilon(1e-7)
kt.src.config.DEBUG = False  # private: else KerasTuner prints a traceback of each failed trial, which is reported
tf.get_logger().setLevel("ERROR")  # it warns of a graph for each trial, which is what a search needs

with contextlib.suppress(RuntimeError):  # in a notebook in which TensorFlow has run, these can't be set any more
    for _gpu in GPUS:
        tf.config.experimental.set_memory_growth(_gpu, True)  # several processes may share it
    # One thread for each process on a CPU: digits depend neither on cores nor on how many trials run at a time.
    if not GPUS and "TF_NUM_INTRAOP_THREADS" not in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    if not GPUS and "TF_NUM_INTEROP_THREADS" not in os.environ:
        tf.config.threading.set_inter_op_parallelism_threads(1)

_all_reduce = keras.optimizers.Optimizer._all_reduce_sum_gradients
# Private, and the only way: to sum the gradients of several devices, TensorFlow registers a function for good, and with
# it the graph of each training: 16 MB a trial (variants.py memory). Without a strategy, there is nothing to sum.
keras.optimizers.Optimizer._all_reduce_sum_gradients = lambda self, grads_and_vars: (
    _all_reduce(self, grads_and_vars) if tf.distribute.has_strategy() else grads_and_vars
)


def set_up(precision, deterministic):
    """Sets the dtype policy, and TensorFlow's determinism: on CPUs always, where it costs nothing."""
    keras.config.set_dtype_policy(precision)
    if deterministic or not GPUS:
        tf.config.experimental.enable_op_determinism()


def _cpu():  # what Linux says of the first processor
    path = Path("/proc/cpuinfo")
    lines = path.read_text().partition("\n\n")[0].splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def fastest_precision():
    """The dtype policy with the fastest training step on this hardware, by asking the hardware."""
    if not GPUS:  # without instructions for bfloat16 it is emulated, ten times slower
        return "mixed_bfloat16" if {"avx512_bf16", "amx_bf16"} & set(_cpu().get("flags", "").split()) else "float32"
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
    cores, name = joblib.cpu_count(), _cpu().get("model name") or platform.processor()
    return ", ".join(gpus) or f"{cores} CPU core{'s' * (cores > 1)} ({name})"


def announce(precision, at_a_time):
    """Says on what a search runs, and what is slow about it."""
    if not GPUS and shutil.which("nvidia-smi"):
        print("TensorFlow does not see this machine's NVIDIA GPU: pip install 'tensorflow[and-cuda]' brings CUDA")
    if precision == "mixed_bfloat16" and fastest_precision() == "float32":
        print("This search was started in bfloat16, which this processor computes in software, some ten times slower")
    trials = f"{at_a_time} trial{'s' * (at_a_time > 1)} at a time"
    print(f"{hardware()}, {precision.removeprefix('mixed_')}, {trials}")


def versions():
    """The versions of the packages that a result depends on."""
    return {module.__name__: module.__version__ for module in (tf, keras, kt, np)}
