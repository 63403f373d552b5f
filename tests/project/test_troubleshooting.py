"""The messages that the page on troubleshooting quotes are those that the package raises."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What other packages say.
FOREIGN = {"Could not load libtorchcodec", "decode_wait"}


def test_quoted_messages_are_raised():
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = {text for heading in re.findall(r"^### (.*)$", page, re.M) for text in re.findall(r"`([^`]+)`", heading)}
    assert len(quoted) > 12
    texts = []
    for path in (ROOT / "hf_video").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values))
    source = "\n".join(texts)
    assert not {text for text in quoted - FOREIGN if text not in source}
