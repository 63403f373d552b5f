"""The example `arrow_of_time.py`: what has a direction in time is told from its reverse, what has none is not."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import tiny

from hf_video.video import write_video

EXAMPLE = Path(__file__).parents[2] / "examples" / "arrow_of_time.py"


def test_the_probe_sees_what_changes_in_one_direction(tmp_path, capsys):
    model = tiny.save_tiny(tmp_path / "model")
    for name, growth in (("growing", 1), ("still", 0)):
        (tmp_path / name).mkdir()
        for number in range(18):
            rng = np.random.default_rng(number)
            base = rng.uniform(40, 120, (1, 32, 32, 3)) + growth * np.linspace(0, 100, 8)[:, None, None, None]
            frames = (base + rng.normal(0, 8, (8, 32, 32, 3))).clip(0, 255).astype(np.uint8)
            write_video(tmp_path / name / f"{number:02d}.mkv", frames, 8, codec="ffv1")
    main = runpy.run_path(str(EXAMPLE))["main"]
    said = {}
    for name in ("growing", "still"):
        assert main([str(tmp_path / name), "--model", str(model), "--num-frames", "4"]) == 0
        said[name] = float(capsys.readouterr().out.partition("%")[0])
    assert said["growing"] == 100
    assert 15 <= said["still"] <= 85
    assert main([str(tmp_path / "model"), "--model", str(model)]) == 2
