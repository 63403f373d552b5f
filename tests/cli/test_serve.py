"""`hf-video serve` before the page: what is wrong is said. The page itself: tests/retrieval/test_page.py."""

from __future__ import annotations

import pytest

from hf_video import cli
from hf_video.retrieval import VideoIndex

pytest.importorskip("pyarrow")


def run(capsys, *arguments):
    code = cli.main(["serve", *(str(a) for a in arguments)])
    return code, capsys.readouterr().err


def test_no_index_is_2(capsys, tmp_path):
    code, err = run(capsys, tmp_path)
    assert code == cli.WRONG
    assert "not a search index" in err


def test_an_empty_index_is_2(capsys, tmp_path):
    VideoIndex.create(tmp_path / "index")
    code, err = run(capsys, tmp_path / "index")
    assert code == cli.WRONG
    assert "The index is empty" in err
