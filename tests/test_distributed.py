"""Data parallel, for real: two processes on gloo are one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from against_torch import EVERY_KIND, TOLERANCE

SCRIPT = Path(__file__).with_name("distributed_training.py")
pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this build of torch has no gloo",
)


@pytest.fixture(scope="module")
def found():
    """What the script printed, by (how, kind). In any case no process of it is left behind."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    with subprocess.Popen(
        [*command, "--nproc-per-node", "2", str(SCRIPT)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, errors = process.communicate(timeout=200)
        finally:
            process.terminate()  # it then ends its workers, which are no children of ours
    assert process.returncode == 0, errors
    lines = [json.loads(line) for line in said.splitlines()]
    return {(line["how"], line["kind"]): line for line in lines}


@EVERY_KIND
@pytest.mark.parametrize(
    "how", ["ddp", "ddp-static", "fsdp", "ddp-accelerated", "fsdp-accelerated"]
)
def test_two_processes_are_one(how, kind, found):
    line = found[how, kind]
    assert line["losses"] <= TOLERANCE[torch.float64]
    assert line["weights"] <= TOLERANCE[torch.float64]
    assert line["range"] > 0.1, "nothing was learnt"
