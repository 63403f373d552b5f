"""`import hf_video` against importing torch, transformers and the classes that any such package has to touch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, Times, compare
from benchmarks.setting import Setting

AREA = "import"
TARGET = 1.2
OURS, PEER = "import hf_video", "import torch, transformers and the classes it needs"
CODE = {
    OURS: "import hf_video",
    PEER: """
import torch, transformers
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.pipelines import PIPELINE_REGISTRY
""",
}
CLOCK = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{code}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
ROOT = Path(__file__).resolve().parents[1]


def run(setting: Setting) -> list[Row]:
    times = {name: Times() for name in CODE}
    for number in range(1 + (1 if setting.quick else 5)):  # the first one fills the disk cache and isn't counted
        for name, code in CODE.items():
            cpu, wall = in_new_process(code)
            if number:
                times[name].cpu.append(cpu * 1e3)
                times[name].wall.append(wall * 1e3)
    job = "importing, a new process each"
    return [compare(times, OURS, PEER, area=AREA, job=job, target=setting.target(TARGET))]


def in_new_process(code: str) -> tuple[float, float]:
    """(CPU seconds, wall seconds) that the code takes in a fresh interpreter, its own start not counted."""
    command = [sys.executable, "-c", CLOCK.format(code=code)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    cpu, wall = output.split()[-2:]
    return float(cpu), float(wall)
