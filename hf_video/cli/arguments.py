"""The parser of all verbs: options that they share, types of values, and near matches of mistyped names."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hf_video.base.written_files import EVENT_FILES, PICTURES, check_output_file, check_output_folder
from hf_video.errors import OutputError, did_you_mean

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """An argparse parser with the options that several verbs share, which names the near match of a mistyped one."""

    def add_option(self, name: str, **settings: Any) -> None:
        """Adds an argument as `add_argument` does; `settings` change those of an option in `SHARED_OPTIONS`.

        Short and former names come with it.
        """
        short = [SHORT_NAMES[name]] if name in SHORT_NAMES else []
        self.add_argument(name, *short, **{**SHARED_OPTIONS.get(name, {}), **settings})
        for old in FORMER_NAMES.get(name, ()):
            self.add_alias(old, name)

    def add_alias(self, old: str, name: str) -> None:
        """Accepts an option under a former name too, which help doesn't show."""
        self._option_string_actions[old] = self._option_string_actions[name]

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse, but an unknown option is reported first: the one that it was meant to be is then missing too."""
        for word in args or ():
            name = word.partition("=")[0]
            if self._subparsers is None and name.startswith("--") and name != "--":
                known = [option for option in self._option_string_actions if option.startswith("--")]
                if not any(option.startswith(name) for option in known):
                    former = {old for names in FORMER_NAMES.values() for old in names}
                    hint = did_you_mean(name, [option for option in known if option not in former])
                    self.error(f"there is no option {name}.{hint} --help lists them.")
            if word == "--":
                break
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(value, known)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}.{hint}")


# -- types of values --------------------------------------------------------------------------------------------------


def _number(kind: Callable[[str], Number], allowed: Callable[[Number], bool], words: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            number: Number | None = kind(text)
        except ValueError:
            number = None
        if number is None or not allowed(number):
            raise argparse.ArgumentTypeError(f"{text!r} came, and it must be {words}")
        return number

    return parse


MOST = 10**9  # a larger number of frames, videos or processes is a typing error
positive_int = _number(int, lambda n: 1 <= n <= MOST, f"a whole number from 1 to {MOST:,}")
non_negative_int = _number(int, lambda n: 0 <= n <= MOST, f"a whole number from 0 to {MOST:,}")
seed = _number(int, lambda n: 0 <= n < 2**32, "a whole number from 0 to 4294967295")
port = _number(int, lambda n: 0 <= n < 2**16, "a port, a whole number from 0 to 65535")
non_negative_float = _number(float, lambda n: 0 <= n < float("inf"), "a number from 0 up")
finite_float = _number(float, math.isfinite, "a number")
fraction = _number(float, lambda n: 0 <= n < 1, "a fraction from 0 to less than 1, such as 0.2")
_score = _number(float, math.isfinite, 'a score such as 0.5, or "model"')


def score_limit(text: str) -> float | str:
    return text if text == "model" else _score(text)


def output_folder(path: str) -> str:
    return check_output(path, check_output_folder)


def output_picture(path: str) -> str:
    return check_output(path, lambda file: check_output_file(file, suffixes=PICTURES))


def output_events(path: str) -> str:
    return check_output(path, lambda file: check_output_file(file, suffixes=EVENT_FILES))


def check_output(path: str, check: Callable[[str], None]) -> str:
    """The path, for argparse; an output that can't be written is told before anything is computed."""
    try:
        if not path:
            raise OutputError("the name is empty")
        check(path)
    except (OutputError, OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def name_list(text: str) -> list[str]:
    """Names with commas between them."""
    return [one for one in map(str.strip, text.split(",")) if one]


def data_format(name: str) -> str:
    from hf_video.data.sources.load import FORMATS

    if name.partition(":")[0] in FORMATS:
        return name
    raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FORMATS)}.{did_you_mean(name, FORMATS)}")


# -- options of several verbs ------------------------------------------------------------------------------------------

# None: as it was saved.
DTYPES = {"saved": None, "auto": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SHARED_OPTIONS: dict[str, dict[str, Any]] = {
    "--backend": {"choices": ("auto", "pyav", "torchcodec"), "help": "what decodes (default auto)"},
    "--batch-size": {"type": positive_int, "metavar": "N", "help": "clips in one forward (default: at most 8)"},
    "--compile": {
        "action": "store_true",
        "help": "torch.compile the model at the first clips: that takes minutes, and what it saves is said",
    },
    "--device": {"help": "cpu, cuda, cuda:1, mps (default: an accelerator if there is one)"},
    "--dtype": {
        "choices": tuple(DTYPES),
        "default": "saved",
        "help": "numbers of the model: saved (default), or auto, what is fast here: bf16 where the processor has it",
    },
    "--format": {
        "type": data_format,
        "metavar": "NAME",
        "help": "of lists and sources that don't tell: kinetics, ucf101, charades, … (a wrong name lists them)",
    },
    "--group-pattern": {"metavar": "REGEX", "help": "clips of one recording stay on one side"},
    "--num-workers": {
        "type": non_negative_int,
        "metavar": "N",
        "help": "processes that read ahead (default: a thread of this one; 0: nothing is read ahead)",
    },
    "--output": {"type": output_folder, "metavar": "DIR"},
    "--overwrite": {
        "action": "store_true",
        "help": "a new run takes the place of the one in --output when it is finished",
    },
    "--processes": {
        "type": positive_int,
        "default": 1,
        "metavar": "N",
        "help": "each with a model of its own (default 1)",
    },
    "--quiet": {"action": "store_true", "help": "no progress bar"},
    "--resume": {"action": "store_true", "help": "go on with the run in --output"},
    "--revision": {"help": "branch, tag or commit of a model on the Hub"},
    "--seed": {"type": seed, "default": 0, "metavar": "N", "help": "of the random numbers (default 0)"},
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "SECTION.NAME=VALUE",
        "dest": "settings",
        "help": "change the recipe",
    },
    "--snap": {
        "choices": ("keyframe",),
        "help": "show keyframes only, at their own seconds: much faster where they are far apart (default: exact)",
    },
    "--videos": {"metavar": "DIR", "help": "where the videos of a list lie (default: beside it)"},
    "--views": {"metavar": "5x3", "help": "clips x crops that are averaged (default: one view)"},
    "--windows": {"metavar": "2s/1s", "help": "a result for each window of that length [and step] in seconds"},
    "--yes": {"action": "store_true", "help": "train even if the plan's time or memory is absurd"},
}
# Those that every training run takes, under the names of its arguments.
RUN_OPTIONS = ("recipe", "output", "settings", "group_pattern", "resume", "overwrite", "yes", "revision")
SHORT_NAMES = {"--model": "-m", "--output": "-o", "--quiet": "-q", "--recipe": "-r", "--yes": "-y"}
FORMER_NAMES = {"--windows": ("--window",), "--processes": ("--workers",)}
