"""Docstrings of the package, which are plain text with backticks, as reStructuredText, before napoleon reads them."""

from __future__ import annotations

import ast
import re
from textwrap import dedent

SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:")
ENTRY = re.compile(r"([\w.*, /-]+|`[^`]+`(?:, `[^`]+`)*):\s+(\S.*)")


def to_rst(lines: list[str], targets: dict[str, str]) -> list[str]:
    """The lines of one docstring: Google's sections stay, code and lists above them get their markup.

    Args:
        lines: As `inspect.cleandoc` leaves them.
        targets: Names that stand on a page, and where: in backticks they become links.

    Returns:
        The lines of reStructuredText.
    """
    out: list[str] = []
    for block in _blocks(lines):
        if block[0] in SECTIONS:
            out += [block[0], *(_inline(line, targets) for line in block[1:]), ""]
        elif block[0].startswith(" "):
            out += [*_indented(block, targets), ""]
        else:
            out += [*(_inline(line, targets) for line in block), ""]
    return out


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines of one kind: a section with all that is indented below it, indented lines, a paragraph, a list."""
    blocks: list[list[str]] = []
    kind = None
    for line in lines:
        inside = line.startswith(" ") or (not line and kind in ("section", "indented"))
        if line in SECTIONS:
            now = "section"
        elif inside and kind in ("section", "item"):
            now = kind
        elif inside:
            now = "indented"
        else:
            now = "item" if line.startswith("- ") else "text" if line else None
        if now != kind or (now == "item" and line.startswith("- ")) or line in SECTIONS:
            blocks.append([])
        kind = now
        if blocks and now:
            blocks[-1].append(line)
    return [[*_stripped(block)] for block in blocks if any(block)]


def _stripped(block: list[str]) -> list[str]:
    while block and not block[-1]:
        block.pop()
    return block


def _indented(block: list[str], targets: dict[str, str]) -> list[str]:
    """Options with a colon as a list; else the lines are code, or a drawing."""
    text = dedent("\n".join(block)).splitlines()
    if all(ENTRY.match(line) or line.startswith(" ") or not line for line in text) and not _is_python(text):
        items = []
        for line in text:
            if entry := ENTRY.match(line):
                name = entry[1].strip("`")
                items += ["", f"* ``{name}``: {_inline(entry[2], targets)}"]
            else:
                items += [f"  {_inline(line.strip(), targets)}"]
        return items[1:]
    return [f".. code-block:: {'python' if _is_python(text) else 'text'}", "", *(f"   {line}" for line in text)]


def _is_python(lines: list[str]) -> bool:
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return not all(isinstance(node, ast.AnnAssign) for node in tree.body)


def _inline(line: str, targets: dict[str, str]) -> str:
    """Backticks as literals, stars and bars as themselves; `**bold**` stays."""
    parts = re.split(r"(`+[^`]+`+|\*\*[^*\s](?:[^*]*[^*\s])?\*\*)", line)
    out = ""
    for place, part in enumerate(parts):
        if place % 2 == 0:
            out += re.sub(r"([*|\\])|(?<=\w)(_)(?!\w)", r"\\\1\2", part)
            continue
        name = part.strip("`")
        if name in targets:
            marked = f":py:obj:`{name} <{targets[name]}>`"
        else:
            marked = f"``{name}``" if part.startswith("`") else part
        before, after = parts[place - 1][-1:], parts[place + 1][:1]
        out += ("\\ " if re.match(r"[\w\\]", before) else "") + marked + ("\\ " if re.match(r"\w", after) else "")
    return out
