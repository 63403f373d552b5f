"""The shape of the house: imports go down, forbidden packages stay out, files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "hf_video"
FILES = sorted(ROOT.rglob("*.py"))

FLOORS = [
    {"video", "layers", "losses", "metrics", "outputs", "errors", "wording", "output_paths", "_version"},
    {
        *("configuration", "processing", "processing_config", "processing_pixels", "modeling", "modeling_conv"),
        *("safe_weights", "model_folder", "data"),
    },
    {"convert"},  # the door that the models' own converters stand behind
    {"models"},
    {"tasks"},
    {"training", "inference", "retrieval", "federated"},
    {"cli"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
# The table of what there is: it names everything, imports it when asked, and needs next to nothing itself.
WIRING = {"__init__", "registry"}
FORBIDDEN = {"torchvision", "decord", "timm", "pytorchvideo", "einops"}
# Other extras are imported where they are used, so that a plain installation works.
LAZY = {
    "matplotlib",
    "ray",
    "pyarrow",
    "datasets",
    "accelerate",
    "evaluate",
    "cv2",
    "faiss",
    "gradio",
    "torchcodec",
    "flwr",
    "webdataset",
    "onnx",
}


def part_of(path: Path) -> str:
    """`hf_video/<part>/…` or `hf_video/<part>.py`."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> list[str]:
    """Dotted names of all modules that a file imports; with `top_only` those outside functions."""
    tree = ast.parse(path.read_text())
    found = []

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import in line {child.lineno}; write it absolute"
                found.extend([child.module, *(f"{child.module}.{alias.name}" for alias in child.names)])
            elif isinstance(child, ast.Call) and getattr(child.func, "attr", "") == "import_module":
                found.extend(a.value for a in child.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            if not (top_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))):
                visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
class TestFile:
    def test_imports_go_down(self, path):
        part = part_of(path)
        wiring = part in WIRING
        assert wiring or part in FLOOR, f"{part} stands on no floor; see FLOORS"
        floor = 0 if wiring else FLOOR[part]
        for name in imports(path, top_only=wiring):
            pieces = name.split(".")
            if pieces[0] == "hf_video" and len(pieces) > 1 and pieces[1] in FLOOR:
                assert FLOOR[pieces[1]] <= floor, f"{part} imports {name}, which stands above it"

    def test_nothing_forbidden_is_imported(self, path):
        assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN
        assert not {name.split(".")[0] for name in imports(path, top_only=True)} & LAZY

    def test_files_are_short(self, path):
        assert len(path.read_text().splitlines()) <= 400

    def test_annotations_are_lazy(self, path):
        annotated = any(isinstance(n, (ast.FunctionDef, ast.AnnAssign)) for n in ast.walk(ast.parse(path.read_text())))
        assert not annotated or "from __future__ import annotations" in path.read_text()


def test_video_knows_no_transformers():
    for path in (ROOT / "video").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"transformers", "huggingface_hub"}, path


def test_layers_know_no_models_name():
    names = [p.name for p in (ROOT / "models").iterdir() if p.is_dir() and not p.name.startswith("_")]
    for path in (ROOT / "layers").glob("*.py"):
        tree = ast.parse(path.read_text())
        identifiers = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
            n.name for n in ast.walk(tree) if isinstance(n, (ast.ClassDef, ast.FunctionDef))
        }
        assert not [i for i in identifiers for name in names if name in i.lower()], path


def test_there_is_no_drawer_for_odds_and_ends():
    assert not [p for p in FILES if p.stem in ("utils", "util", "helpers", "misc", "common")]


def test_the_checks_see_what_they_should(tmp_path):
    """A file that breaks the rules is caught, also inside functions and by import_module."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f():\n    import torchvision.ops\n    import importlib\n    importlib.import_module('decord')\n"
    )
    assert {"torchvision.ops", "decord"} <= set(imports(bad))
    assert imports(bad, top_only=True) == []
    bad.write_text("from . import x\n")
    with pytest.raises(AssertionError, match="relative"):
        imports(bad)
