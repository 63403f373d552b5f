"""The shape of the house: imports go down, forbidden packages stay out, files stay short."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "hf_video"
TESTS = Path(__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Imports go down only: a folder imports those of its own floor and of the floors below, and there is no circle.
FLOORS = [
    {"errors"},
    {"registry", "layers", "video"},
    {"base"},
    {"clips"},
    {"data", "models"},
    {"features", "pipelines", "evaluation", "hub"},
    {"training", "retrieval", "live", "export", "visual"},
    {"federated"},
    {"auto"},
    {"__init__", "cli"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
ROOT_MODULES = {"__init__", "errors", "registry", "auto"}
MOST_FILES = 20  # in one folder
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
    "torchcodec",
    "flwr",
    "opacus",
    "tenseal",
    "webdataset",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "nncf",
    "umap",
}
# Flower's own classes, which nothing imports but what runs them.
OF_FLOWER = {ROOT / "federated" / "apps.py", ROOT / "federated" / "messages" / "local_grid.py"}


def part_of(path: Path) -> str:
    """`hf_video/<part>/…` or `hf_video/<part>.py`."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


@dataclass
class Contents:
    """What the tests ask of a file, so that each is parsed once."""

    imported: list[str] = field(default_factory=list)  # with the module: outside functions, not for type checkers alone
    imported_later: list[str] = field(default_factory=list)
    relative_imports: list[int] = field(default_factory=list)  # lines, as the next two
    annotations: list[int] = field(default_factory=list)
    bare_class_variables: list[int] = field(default_factory=list)
    identifiers: set[str] = field(default_factory=set)


@functools.cache
def contents(text: str) -> Contents:
    found = Contents()

    def visit(node, imported):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                imported.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                if child.level:
                    found.relative_imports.append(child.lineno)
                else:
                    imported.extend([child.module, *(f"{child.module}.{alias.name}" for alias in child.names)])
            elif isinstance(child, ast.Call) and getattr(child.func, "attr", "") == "import_module":
                imported.extend(a.value for a in child.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            elif isinstance(child, ast.AnnAssign) and ast.unparse(child.annotation).endswith("ClassVar"):
                found.bare_class_variables.append(child.lineno)
            elif isinstance(child, ast.Name):
                found.identifiers.add(child.id)
            elif isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                found.identifiers.add(child.name)
            if isinstance(child, (ast.FunctionDef, ast.AnnAssign)):
                found.annotations.append(child.lineno)
            lazy = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            typed = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            visit(child, found.imported_later if lazy or typed else imported)

    visit(ast.parse(text), found.imported)
    return found


def imports(path: Path, *, top_only: bool = False) -> list[str]:
    """Dotted names of all modules that a file imports; with `top_only` those that are imported with it."""
    found = contents(path.read_text())
    lines = found.relative_imports
    assert not lines, f"{path}: relative imports in lines {lines}; write them absolute"
    return found.imported if top_only else [*found.imported, *found.imported_later]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def modules() -> dict[str, set[str]]:
    """For each module of the package those of the package that it imports."""
    paths = {module_of(path): path for path in FILES}
    return {
        name: {found for found in imports(path) if found in paths and found not in (name, "hf_video")}
        for name, path in paths.items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Names each of which imports the one before it, the first the last; or none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def folders(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between the parts of the package, a model's folder being one."""

    def part(name: str) -> str:
        pieces = name.split(".")
        return ".".join(pieces[1:3] if pieces[1:2] == ["models"] else pieces[1:2])

    found: dict[str, set[str]] = {}
    for name, below in edges.items():
        found.setdefault(part(name), set()).update(part(one) for one in below)
    return {name: below - {name} for name, below in found.items() if name}


def test_there_is_no_circle():
    assert not circle(modules())
    assert not circle(folders(modules()))


def test_circles_are_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}})) == {"b", "c"}
    assert folders({"hf_video.data.rows": {"hf_video.errors"}, "hf_video.data.seeds": {"hf_video.data.rows"}}) == {
        "data": {"errors"}
    }


def test_the_root_holds_what_it_names():
    assert {path.stem for path in ROOT.glob("*.py")} == ROOT_MODULES
    parts = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert parts <= set(FLOOR), "a folder that stands on no floor; see FLOORS"


@pytest.mark.parametrize("top", ["hf_video", "tests", "examples", "benchmarks", "docs", "findings"])
def test_no_folder_is_full(top):
    for folder in [ROOT.parent / top, *(path for path in (ROOT.parent / top).rglob("*") if path.is_dir())]:
        if "golden" not in folder.parts and "saved_by_0_1_0" not in folder.parts:
            files = [path for path in folder.iterdir() if path.suffix == ".py"]
            assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"


def test_tests_mirror_the_package():
    """A folder of tests is one of the package, or that of official code, or of the project (types, wheel, pages)."""
    for folder in TESTS.rglob("*"):
        if folder.is_dir() and list(folder.glob("test_*.py")):
            place = folder.relative_to(TESTS)
            assert (ROOT / place).is_dir() or place.parts[0] in ("parity", "project"), f"tests/{place}: no such folder"


def test_any_tests_can_be_collected_together():
    """Test modules are imported by their bare names: two of one name, or an import of `conftest`, which each folder
    has, work only where the other folders are not collected."""
    files = [path for path in TESTS.rglob("*.py") if path.name != "conftest.py"]
    names = [path.name for path in files]
    assert not {name for name in names if names.count(name) > 1}
    assert not [path for path in TESTS.rglob("*.py") if "conftest" in imports(path)]


def test_imports_go_down():
    for path in FILES:
        part = part_of(path)
        for name in imports(path, top_only=part == "__init__"):
            pieces = name.split(".")
            if pieces[0] == "hf_video" and len(pieces) > 1 and pieces[1] in FLOOR:
                assert FLOOR[pieces[1]] <= FLOOR[part], f"{path} imports {name}, which stands above it"
            assert name != "hf_video.auto" or part in ("auto", "__init__", "cli"), f"{path} imports the registration"


def test_nothing_forbidden_is_imported():
    for path in FILES:
        assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN, path
        at_once = {name.split(".")[0] for name in imports(path, top_only=True)}
        assert not at_once & (LAZY - {"flwr"} if path in OF_FLOWER else LAZY), path


def test_files_are_short():
    lengths = {str(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: lines for path, lines in lengths.items() if lines > 400}


def test_annotations_are_lazy():
    for path in FILES:
        annotated = contents(path.read_text()).annotations
        assert not annotated or "from __future__ import annotations" in path.read_text(), path


def test_class_variables_say_their_type():
    """transformers evaluates the annotations of models; Python 3.10 refuses `ClassVar` without a type there."""
    for path in FILES:
        assert not contents(path.read_text()).bare_class_variables, path


def test_video_knows_no_transformers():
    for path in (ROOT / "video").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"transformers", "huggingface_hub"}, path


def test_layers_know_no_models_name():
    names = [p.name for p in (ROOT / "models").iterdir() if p.is_dir() and not p.name.startswith("_")]
    for path in (ROOT / "layers").glob("*.py"):
        identifiers = contents(path.read_text()).identifiers
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
    bad.write_text("if TYPE_CHECKING:\n    import decord\nif x:\n    import timm\n")
    assert (sorted(imports(bad)), imports(bad, top_only=True)) == (["decord", "timm"], ["timm"])
    bad.write_text("from . import x\n")
    with pytest.raises(AssertionError, match="relative"):
        imports(bad)
    bad.write_text("class A:\n    x: ClassVar = 1\n    y: ClassVar[int] = 2\n    def f(self, z): return q\n")
    seen = contents(bad.read_text())
    assert (seen.bare_class_variables, seen.annotations) == ([2], [2, 3, 4])
    assert seen.identifiers == {"A", "f", "q", "x", "y", "ClassVar", "int"}
