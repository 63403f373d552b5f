"""Every public name has its entry in the reference, and a docstring that the entry shows."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

import hf_video

ROOT = Path(__file__).parents[2]
SECTIONS = re.compile(r"^(Args|Returns|Raises|Yields):$", re.M)
# Functions in the reference whose docstrings say in prose what others say in sections. It only gets smaller.
WITHOUT_SECTIONS = 67
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site():
    sys.path.insert(0, str(DOCS))
    try:
        import docstrings
        import site_pages

        return site_pages, docstrings
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def pages(site):
    return site[0].pages()


def test_every_public_name_has_an_entry_and_a_docstring(pages):
    entries = set(re.findall(r"^\.\. (?:py:data|autoclass|autofunction):: (\S+)$", "\n".join(pages.values()), re.M))
    documented = {id(_value(entry)) for entry in entries}
    missing, silent = [], []
    for stub in (ROOT / "hf_video").rglob("__init__.pyi"):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        for name in importlib.import_module(package).__all__:
            value = _value(f"{package}.{name}")
            if id(value) not in documented:
                missing.append(f"{package}.{name}")
            if (inspect.isclass(value) or inspect.isfunction(value)) and not value.__doc__:
                silent.append(f"{package}.{name}")
    assert not missing, "no entry in the reference"
    assert not silent, "no docstring"
    values = re.findall(r"^\.\. py:data:: (\S+)\n\n {3}(.*)$", "\n".join(pages.values()), re.M)
    assert "hf_video.MODELS" in dict(values)
    assert all(text for _, text in values), "a comment above a value's definition is what the reference says of it"


def _value(path: str):
    package, _, name = path.rpartition(".")
    return getattr(importlib.import_module(package), name)


def test_ever_fewer_functions_lack_sections():
    lacking = {name for name, value in _functions() if not SECTIONS.search(inspect.cleandoc(value.__doc__))}
    assert len(lacking) <= WITHOUT_SECTIONS, f"write Args, Returns and Raises of what is new among {sorted(lacking)}"


def _functions():
    """The documented functions and methods with parameters that the reference shows, by name."""
    for stub in (ROOT / "hf_video").rglob("__init__.pyi"):
        package = ".".join(stub.parent.relative_to(ROOT).parts)
        for name in importlib.import_module(package).__all__:
            value = _value(f"{package}.{name}")
            members = vars(value).items() if inspect.isclass(value) else [("", value)]
            for member, function in members:
                function = getattr(function, "__func__", function)
                if not inspect.isfunction(function) or member[:1] == "_" or not function.__doc__:
                    continue
                if set(inspect.signature(function).parameters) - {"self", "cls"}:
                    yield f"{value.__module__}.{name}.{member}", function


def test_model_pages_are_cards_and_classes(pages):
    assert {f"models/{path.stem}.md" for path in (ROOT / "model_cards").glob("*.md")} <= set(pages)
    page = pages["models/videomae.md"]
    assert page.startswith("# VideoMAE")
    assert ".. autoclass:: hf_video.VideoMAEForPreTraining" in page
    assert all(name in "\n".join(pages.values()) for row in hf_video.MODELS.values() for name in row.class_names)


def test_findings_are_those_of_the_scripts(pages):
    page = pages["project/findings.md"]
    scripts = sorted(path.name for path in (ROOT / "findings").glob("*.sh"))
    assert re.findall(r"^Script: `findings/(.*)`$", page, re.M) == scripts
    assert all(page.count(f"**{field}:**") == len(scripts) for field in ("Versions", "Guess", "Seen"))


def test_commands_show_the_help_of_every_verb(pages):
    from hf_video.cli import VERBS

    page = pages["reference/commands.md"]
    assert re.findall(r"^## hf-video (\w+)$", page, re.M) == list(VERBS)
    assert page.count("usage: hf-video") >= len(VERBS)


def test_links_of_copied_pages_lead_where_they_led(pages):
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)\s:#]+)[^)\s]*\)", re.sub(r"```.*?```", "", text, flags=re.S)):
            path = ((DOCS / name).parent / target).resolve()  # the page's folder is there after a build alone
            assert path.exists() or str(path.relative_to(DOCS)) in pages, f"{name}: {target}"


def test_docstrings_become_markup(site):
    lines = inspect.cleandoc(
        """Reads *all* `X`s.

        Options:
            top_k: How many,
                at most |n|.
            views: "5x3".
        For example:

            read(x)  # as code

        - one
          more
        - two

        Args:
            x: (T, 3), `VideoReader`.
        """
    ).splitlines()
    text = "\n".join(site[1].to_rst(lines, {"VideoReader": "hf_video.VideoReader"}))
    assert "Reads \\*all\\* ``X``\\ s." in text
    assert "* ``top_k``: How many,\n  at most \\|n\\|.\n" in text
    assert "\n- one\n  more\n\n- two\n" in text
    assert "Args:\n    x: (T, 3), :py:obj:`VideoReader <hf_video.VideoReader>`." in text
