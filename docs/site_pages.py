"""The pages of the site that are made of other files: reference, commands, model pages, findings, change log.

`conf.py` writes them before each build, into folders that git ignores. Without Sphinx: `python docs/site_pages.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = ("reference", "models", "project")  # of `docs/`; nothing in them is written by hand

# Modules that pages and examples name by their path; all other public names are in the `__init__.pyi` of a folder.
MODULES = (
    "hf_video.errors",
    "hf_video.base.processing",
    "hf_video.data.moving_glyphs",
    "hf_video.data.untrimmed_glyphs",
)


def pages() -> dict[str, str]:
    """The text of each page, by its path below `docs/`."""
    public = public_names()
    models = dict(model_pages(public))
    reference = {f"reference/{package}.md": _package_page(package, public) for package in _packages(public)}
    modules = {f"reference/{module}.md": _module_page(module) for module in MODULES}
    return {
        **models,
        **reference,
        **modules,
        "models/index.md": _models_index(models),
        "reference/commands.md": _commands(),
        "reference/index.md": _reference_index([*reference, *modules]),
        "project/findings.md": findings(),
        "project/changelog.md": _copied(ROOT / "CHANGELOG.md", "project"),
        "project/contributing.md": _copied(ROOT / "CONTRIBUTING.md", "project"),
    }


def write_pages() -> None:
    """Writes what has changed, so that Sphinx reads no page twice, and removes pages that are gone."""
    made = pages()
    for name, text in made.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in [path for folder in FOLDERS for path in (DOCS / folder).glob("*.md")]:
        if str(path.relative_to(DOCS)) not in made:
            path.unlink()


def public_names() -> dict[str, list[str]]:
    """Each package that exports names, from the top down, with the names that no package above exports."""
    stubs = sorted((ROOT / "hf_video").rglob("__init__.pyi"), key=lambda path: (len(path.parts), path))
    exported, seen = {}, []
    for stub in stubs:
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        module = importlib.import_module(package)
        names = [name for name in module.__all__ if not any(getattr(module, name) is one for one in seen)]
        seen += [getattr(module, name) for name in names]
        exported[package] = names
    return exported


def targets() -> dict[str, str]:
    """Where names stand that look like names: those of one small word are not linked."""
    public = {name: f"{package}.{name}" for package, names in public_names().items() for name in names}
    for module in MODULES:
        found = vars(importlib.import_module(module)).items()
        public |= {name: f"{module}.{name}" for name, value in found if getattr(value, "__module__", "") == module}
    known = {name: full for name, full in public.items() if not re.fullmatch(r"[a-z]+", name)}
    return known | {full: full for full in public.values()}


def _packages(public: dict[str, list[str]]) -> list[str]:
    return [package for package, names in public.items() if names]


def _model_of(package: str, name: str) -> str | None:
    """The model's folder that a class lies in."""
    module = getattr(getattr(importlib.import_module(package), name), "__module__", "")
    return module.split(".")[2] if module.startswith("hf_video.models.") else None


def _entry(package: str, name: str) -> str:
    """Sphinx's directive for a public name."""
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value):
        return f".. autoclass:: {package}.{name}\n   :members:\n   :show-inheritance:\n"
    if callable(value) and not hasattr(value, "__origin__"):
        return f".. autofunction:: {package}.{name}\n"
    return f".. py:data:: {package}.{name}\n\n   {_comment(package, name)}\n"


def _comment(package: str, name: str) -> str:
    """What stands above the definition of a value that has no docstring of its own."""
    folder = ROOT / package.replace(".", "/")
    module = re.search(rf"^from \.(\S+) import {name} ", (folder / "__init__.pyi").read_text(), re.M)[1]
    source = (folder / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    above = re.search(rf"((?:^#.*\n)*){name}\b.* = ", source, re.M)[1]
    return " ".join(line.lstrip("# ") for line in above.splitlines())


def _directives(entries: list[str]) -> str:
    return "```{eval-rst}\n" + "\n".join(entries) + "```\n"


def _package_page(package: str, public: dict[str, list[str]]) -> str:
    module = importlib.import_module(package)
    names = [name for name in public[package] if _model_of(package, name) is None]
    elsewhere = sorted({model for name in public[package] if (model := _model_of(package, name))})
    text = f"# {package}\n\n{inspect.getdoc(module) or ''}\n\n"
    if elsewhere:
        links = ", ".join(f"[{model}](../models/{model}.md)" for model in elsewhere)
        text += f"The classes of models are on the models' pages: {links}.\n\n"
    again = [name for name in module.__all__ if name not in public[package]]
    if again:
        links = ", ".join(f"{{py:obj}}`{name} <{_first_home(module, name, public)}>`" for name in again)
        text += f"Also exported here, and described where it is exported first: {links}.\n\n"
    return text + _directives([f".. py:module:: {package}\n", *(_entry(package, name) for name in names)])


def _first_home(module, name: str, public: dict[str, list[str]]) -> str:
    """Where the reference describes a name that several packages export."""
    value = getattr(module, name)
    return next(
        f"{package}.{one}"
        for package, names in public.items()
        for one in names
        if getattr(importlib.import_module(package), one) is value
    )


def _module_page(name: str) -> str:
    module = importlib.import_module(name)
    names = [one for one, value in vars(module).items() if getattr(value, "__module__", "") == name and one[0] != "_"]
    if name == "hf_video.errors":  # what is raised; its checks of arguments are for the package itself
        names = [one for one in names if inspect.isclass(getattr(module, one))]
    text = f"# {name}\n\n{inspect.getdoc(module) or ''}\n\n"
    return text + _directives([f".. py:module:: {name}\n", *(_entry(name, one) for one in names)])


def model_pages(public: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """A page for each folder of models: its card, then its public classes."""
    classes: dict[str, list[str]] = {}
    for package, names in public.items():
        for name in names:
            if model := _model_of(package, name):
                classes.setdefault(model, []).append(_entry(package, name))
    for model in sorted(classes | {path.stem: [] for path in (ROOT / "model_cards").glob("*.md")}):
        card = ROOT / "model_cards" / f"{model}.md"
        if card.exists():
            text = _copied(card, "models")
        else:  # such as S3D, which is read through VideoCLIP
            modeling = importlib.import_module(f"hf_video.models.{model}.modeling_{model}")
            text = f"# {model.upper()}\n\n{inspect.getdoc(modeling)}\n"
        if model in classes:
            text += "\n## Reference\n\n" + _directives(classes[model])
        yield f"models/{model}.md", text


def _models_index(models: dict[str, str]) -> str:
    rows = [f"{Path(name).stem}" for name in models]
    return (
        "# Models\n\nA page for each: what it is, its protocol, published numbers with their source, licence, how to "
        "load it, and its classes. Published accuracies are quoted; no pretrained weights were available to measure "
        "them here.\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(rows) + "\n```\n"
    )


def _reference_index(names: list[str]) -> str:
    return (
        "# Reference\n\nEvery public name, from the docstrings. The names of a package load when they are first "
        "used.\n\n```{toctree}\n:maxdepth: 1\n\ncommands\n" + "\n".join(Path(name).stem for name in names) + "\n```\n"
    )


def _commands() -> str:
    """The help of every verb."""
    from hf_video.cli import VERBS, main

    text = "# Commands\n\nWhat `hf-video VERB --help` prints.\n"
    for verb in VERBS:
        text += f"\n## hf-video {verb}\n\n```text\n{_help(main, [verb])}```\n"
        for action in re.findall(r"^    ([a-z]+) {2,}", _help(main, [verb]), re.M) if verb == "federated" else ():
            text += f"\n### hf-video {verb} {action}\n\n```text\n{_help(main, [verb, action])}```\n"
    return text


def _help(main, words: list[str]) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return out.getvalue()


def findings() -> str:
    """The page of findings: the head of each script."""
    text = _copied(ROOT / "findings" / "README.md", "project")
    for script in sorted((ROOT / "findings").glob("*.sh")):
        head = re.match(r"#!.*\n((?:#.*\n)+)", script.read_text(encoding="utf-8"))[1]
        lines = [line.removeprefix("#").removeprefix(" ") for line in head.splitlines()]
        title, _, body = "\n".join(lines).partition("\n\n")
        text += f"\n## {_escaped(' '.join(title.split()).rstrip('.'))}\n\n"
        for field in re.split(r"\n(?=[A-Z]\w*: )|\n\n", body):
            name, colon, value = field.partition(":")
            if not colon or not re.fullmatch(r"[A-Z]\w*", name):
                text += f"{_escaped(' '.join(field.split()))}\n\n"
            elif name == "Output":
                text += f"**Output**\n\n```text\n{inspect.cleandoc(value)}\n```\n\n"
            else:
                text += f"**{name}:** {_escaped(' '.join(value.split()))}\n\n"
        text += f"Script: `findings/{script.name}`\n"
    return text


def _escaped(text: str) -> str:
    """Text without what Markdown takes as markup, but for code in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]])", r"\\\1", part) for part in parts)


def _copied(path: Path, folder: str) -> str:
    """A file of the repository as a page in `docs/folder`: its links lead where they led."""

    def link(match: re.Match) -> str:
        target, hash_, anchor = match[2].partition("#")
        if ":" in target or not target:
            return match[0]
        return f"{match[1]}({os.path.relpath((path.parent / target).resolve(), DOCS / folder)}{hash_}{anchor})"

    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", link, text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_pages()
