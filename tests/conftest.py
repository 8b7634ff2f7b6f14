"""One thread everywhere: two threads on shared cores make small recurrent steps hundreds of times slower."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("WANDB_MODE", "offline")
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["WANDB_SILENT"] = "true"
os.environ["SUITE_OFFLINE"] = "1"  # no test asks the network for data, nor does a process that it starts

if "SUITE_CACHE_DIR" not in os.environ:  # what is rendered and decoded is made once for the session
    os.environ["SUITE_CACHE_DIR"] = tempfile.mkdtemp(prefix="suite-cache-")
    atexit.register(shutil.rmtree, os.environ["SUITE_CACHE_DIR"], ignore_errors=True)

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():  # kernels for GPUs are run as plain Python; read when Triton is first imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.set_flush_denormal(False)  # a command that a test ran here has set it, for its whole process
