"""A loopback Hub and a client process that talks to it, for the whole session; each test begins with empty records."""

from __future__ import annotations

import pytest
import tiny
from flow_client import Client
from server import LoopbackHub


@pytest.fixture(scope="session")
def _hub():
    with LoopbackHub(multipart_from=2**16, part_size=2**15, page_size=5) as hub:
        yield hub


@pytest.fixture(scope="session")
def client(_hub, tmp_path_factory):
    client = Client(_hub, tmp_path_factory.mktemp("hf_home"))
    yield client
    client.close()


@pytest.fixture
def hub(_hub):
    _hub.forget()
    return _hub


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny VideoMAE classifier and its processor: 118 kB, so four parts of an upload."""
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shards(model, tmp_path):
    """The same model in shards of at most 50 kB, with its processor."""
    import shutil

    from transformers import AutoModelForVideoClassification

    folder = tmp_path / "shards"
    AutoModelForVideoClassification.from_pretrained(model).save_pretrained(folder, max_shard_size="50KB")
    shutil.copy(model / "preprocessor_config.json", folder)
    return folder
