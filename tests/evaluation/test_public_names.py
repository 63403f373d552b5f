"""What the packages export is there, is described, and has types."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGES = ["hf_video.evaluation", "hf_video.features", "hf_video.hub", "hf_video.retrieval"]


def exported(package: str) -> list[tuple[str, str]]:
    stub = Path(importlib.import_module(package).__file__).with_suffix(".pyi")
    found = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return [(node.module, alias.asname) for node in found for alias in node.names]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_stub_is_that_of_its_module(package):
    here = importlib.import_module(package)
    names = exported(package)
    assert sorted(here.__all__) == sorted(name for _, name in names)
    for module, name in names:
        assert getattr(here, name) is getattr(importlib.import_module(f"{package}.{module}"), name)
    with pytest.raises(AttributeError, match="NoSuchThing"):
        here.NoSuchThing  # noqa: B018


@pytest.mark.parametrize(("package", "name"), [(p, name) for p in PACKAGES for _, name in exported(p)])
def test_it_is_described_and_typed(package, name):
    thing = getattr(importlib.import_module(package), name)
    assert inspect.getdoc(thing)
    methods = [one for _, one in inspect.getmembers(thing, inspect.isfunction) if not one.__name__.startswith("_")]
    for function in methods if inspect.isclass(thing) else [thing]:
        own = inspect.signature(function)
        assert own.return_annotation is not inspect.Signature.empty, function
        for parameter in own.parameters.values():
            assert parameter.name == "self" or parameter.annotation is not inspect.Parameter.empty, function
