"""What ``prepare_process`` sets holds in a process that called it."""

import os
import subprocess
import sys

SCRIPT = """
import gc
import torch
from suite.process import prepare_process
prepare_process(threads=1)
assert torch.get_num_threads() == 1
small = torch.tensor([1e-30]) * torch.tensor([1e-10])  # 1e-40 is below the normal range of float32
assert float(small) == 0.0, float(small)
scores = torch.tensor([[0.0, -95.0]])
assert float(scores.softmax(dim=1)[0, 1]) == 0.0
imported = gc.get_freeze_count()
assert imported > 10_000, imported
made = [[number] for number in range(10_000)]
prepare_process(threads=1)
assert gc.get_freeze_count() == imported  # what was made since then can still be collected
"""


def test_subnormal_numbers_become_zero_and_imports_are_left_alone() -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, env=environment)


SEARCHES = """
import ctypes
import lightning.pytorch  # has torch ask the driver's library from now on
import torch
from suite.process import prepare_process
prepare_process(threads=1)
opened, real = [], ctypes.CDLL.__init__
ctypes.CDLL.__init__ = lambda self, name, *args, **kwargs: (opened.append(name), real(self, name, *args, **kwargs))[1]
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
for _ in range(3):
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
assert torch.cuda.is_available() or not opened, opened
"""


def test_no_step_looks_for_a_driver_where_there_is_none() -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", SEARCHES], check=True, env=environment)
