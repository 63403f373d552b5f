"""Figures: what is drawn, for few and for many classes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hf_video.errors import MetricError
from hf_video.evaluation.metrics import reliability

pytest.importorskip("matplotlib")

from hf_video.evaluation import figures


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """They are drawn here."""


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are saved, to look into."""
    seen = []
    save = figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: seen.append(figure) or save(figure, path))
    return seen


def texts(axes):
    return [text.get_text() for text in axes.texts]


def matrix(count, videos=50):
    random = np.random.default_rng(0)
    confusion = np.diag(np.full(count, videos))
    for i in range(count):
        confusion[i, random.integers(count)] += random.integers(1, 20)
    return confusion


def test_few_classes_have_names_and_numbers(drawn, tmp_path):
    confusion = np.array([[40, 3, 0, 0], [10, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 49]])
    path = figures.confusion_figure(confusion, ["left", "right", "nothing", "cost $5"], tmp_path / "a" / "c.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left", "right", r"cost \$5"]
    assert texts(axes) == ["40", "3", "10", "2", "49"]
    assert "91 of 104 right" in axes.get_title()
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_many_classes_are_listed(drawn, tmp_path):
    labels = [f"class {i}" for i in range(400)]
    confusion = matrix(400)
    confusion[7, 300] = 99
    path = figures.confusion_figure(confusion, labels, tmp_path / "c.png")
    left, right = drawn[0].axes[:2]
    assert len(left.get_xticks()) < 15  # numbers, not 400 names
    assert "class 7  →  class 300" in texts(right)
    assert any("Hardest classes" in text for text in texts(right))
    with Image.open(path) as picture:
        assert picture.width > 1500


@pytest.mark.parametrize("count", [1, 2, 16, 17, 60, 61])
def test_every_number_of_classes(count, tmp_path):
    path = figures.confusion_figure(matrix(count), [f"class {i}" for i in range(count)], tmp_path / "c.png")
    assert path.stat().st_size > 5000


def test_calibration(drawn, tmp_path):
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    found = reliability(probabilities, [0, 1, 0])
    figures.reliability_figure(found, tmp_path / "r.png")
    above, below = drawn[0].axes
    heights = sorted(bar.get_height() for bar in above.patches[:2])
    assert heights == [0.5, 1.0]
    assert sum(bar.get_height() for bar in below.patches) == 3


def test_loss_curves(drawn, tmp_path):
    history = [{"step": i, "loss": 1 / i, "learning_rate": 0.1} for i in range(1, 30)]
    history += [{"step": 29, "eval_loss": 0.4, "eval_accuracy": 0.9}, {"train_runtime": 3.0, "step": 29}]
    figures.loss_figure(history, tmp_path / "l.png")
    losses, shares = drawn[0].axes
    assert [line.get_label() for line in losses.lines] == ["training", "evaluation"]
    assert losses.lines[0].get_ydata()[1] == 0.5
    assert [line.get_label() for line in shares.lines] == ["accuracy"]


def test_what_can_not_be_drawn(tmp_path):
    with pytest.raises(MetricError, match="2 classes"):
        figures.confusion_figure(np.zeros((3, 3), int), ["a", "b"], tmp_path / "c.png")
    with pytest.raises(MetricError, match="log_history"):
        figures.loss_figure([{"epoch": 1}], tmp_path / "l.png")


def test_it_asks_for_no_display_and_is_imported_late():
    code = (
        "import sys, types\n"
        "for name in ('hf_video', 'hf_video.inference'):  # without what else `import hf_video` brings\n"
        "    package = sys.modules[name] = types.ModuleType(name); package.__path__ = [name.replace('.', '/')]\n"
        "import hf_video.evaluation.figures as f; assert 'matplotlib' not in sys.modules\n"
        "import numpy as np, tempfile\n"
        "f.confusion_figure(np.eye(2, dtype=int), ['a', 'b'], tempfile.mkdtemp() + '/c.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
