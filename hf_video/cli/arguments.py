"""What the options of all verbs have in common: names, words, what may come, and the near match of a mistyped one."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from hf_video.base.output_paths import PICTURES, check_output_file, check_output_folder
from hf_video.errors import OutputError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Says which name is near a mistyped option or choice."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As argparse, but an option that there is not is said first: what it was meant to be is then missing too."""
        for word in args or ():
            name = word.partition("=")[0]
            if self._subparsers is None and name.startswith("--") and name != "--" and not self._known(name):
                old = {one for names in OLD.values() for one in names}
                names = [known for known in self._option_string_actions if known.startswith("--") and known not in old]
                self.error(f"there is no option {name}.{did_you_mean(name, names)} --help lists them.")
            if word == "--":
                break
        return super().parse_known_args(args, namespace)

    def _known(self, name: str) -> bool:
        return any(known.startswith(name) for known in self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(value, known)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}.{hint}")


def accept_also(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """The option `new` under a name that it had before, which help doesn't show."""
    parser._option_string_actions[old] = parser._option_string_actions[new]


# -- what may come -----------------------------------------------------------------------------------------------------


def _number(kind: Callable[[str], float], allowed: Callable[[float], bool], words: str) -> Callable[[str], Any]:
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not allowed(number):
            raise argparse.ArgumentTypeError(f"{text!r} came, and it must be {words}")
        return number

    return read


MOST = 10**9  # more frames, videos or processes than that are a slip of the finger
count = _number(int, lambda n: 1 <= n <= MOST, f"a whole number from 1 to {MOST:,}")
whole = _number(int, lambda n: 0 <= n <= MOST, f"a whole number from 0 to {MOST:,}")
seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")
port = _number(int, lambda n: 0 <= n < 2**16, "a port, a whole number from 0 to 65535")
share = _number(float, lambda n: 0 <= n < 1, "a share, from 0 to less than 1, such as 0.2")


def folder_to_write(path: str) -> str:
    return _checked(path, check_output_folder)


def data_format(name: str) -> str:
    from hf_video.data.sources.load import FORMATS

    if name.partition(":")[0] in FORMATS:
        return name
    raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}.{did_you_mean(name, FORMATS)}")


def picture_to_write(path: str) -> str:
    return _checked(path, lambda file: check_output_file(file, suffixes=PICTURES))


def _checked(path: str, check: Callable[[str], None]) -> str:
    try:
        if not path:
            raise OutputError("the name is empty")
        check(path)
    except (OutputError, OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


# -- the options that several verbs have: one name and one meaning each ------------------------------------------------

SHARED: dict[str, dict[str, Any]] = {
    "--backend": {"choices": ("auto", "pyav", "torchcodec"), "help": "what decodes (default auto)"},
    "--batch-size": {"type": count, "metavar": "N", "help": "clips in one forward (default: at most 8)"},
    "--device": {"help": "cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"},
    "--format": {
        **{"type": data_format, "metavar": "NAME"},
        "help": "of lists and sources that don't tell: kinetics, ucf101, charades, … (a wrong name lists them)",
    },
    "--group-pattern": {"metavar": "REGEX", "help": "clips of one recording stay on one side"},
    "--num-workers": {
        **{"type": whole, "default": 0, "metavar": "N"},
        "help": "processes that decode (default 0: none of their own)",
    },
    "--output": {"type": folder_to_write, "metavar": "DIR"},
    "--processes": {"type": count, "default": 1, "metavar": "N", "help": "processes with a model each (default 1)"},
    "--quiet": {"action": "store_true", "help": "no progress bar"},
    "--revision": {"help": "branch, tag or commit of a model on the Hub"},
    "--seed": {"type": seed, "default": 0, "metavar": "N", "help": "another number, other draws (default 0)"},
    "--videos": {"metavar": "DIR", "help": "where the videos of a list lie (default: beside it)"},
    "--views": {"metavar": "5x3", "help": "clips x crops that are averaged (default: one view)"},
    "--windows": {"metavar": "2s/1s", "help": "a result for each window of that length [and step] in seconds"},
}
SHORT = {"--model": "-m", "--output": "-o", "--quiet": "-q", "--recipe": "-r", "--yes": "-y"}
# Names that options had before.
OLD = {"--windows": ("--window",), "--processes": ("--workers",)}


def adder(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """`add(name, **changes)`: as `parser.add_argument`, but what several verbs have is said in `SHARED`."""

    def add(name: str, **changes: Any) -> None:
        short = [SHORT[name]] if name in SHORT else []
        parser.add_argument(name, *short, **{**SHARED.get(name, {}), **changes})
        for old in OLD.get(name, ()):
            accept_also(parser, old, name)

    return add
