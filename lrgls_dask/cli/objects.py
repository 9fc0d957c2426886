"""Flags for objects that hold options: one flag chooses the object by a word, and each of its fields has a flag too."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Choice", "argument_type", "as_flag", "help_text"]


@dataclass(frozen=True, eq=False)
class Choice:
    """Dataclasses that the words of a flag stand for, as a registry has them; nothing is declared here.

    A field whose metadata have "command_line" is read by that, or has no flag where that is a text, the reason.
    flag : the one that chooses, without dashes.  prefix : of the flags of fields whose names mean something else too.
    known : fields that have a flag already.
    """

    flag: str
    objects: Mapping[str, Any]
    prefix: str = ""
    known: tuple[str, ...] = ()

    def add_fields(self, parser: argparse.ArgumentParser) -> None:
        """A flag for every field."""
        takers: dict[str, list[str]] = {}
        for word, made in self.objects.items():
            for each in fields(made):
                if each.name not in self.known and not isinstance(each.metadata.get("command_line"), str):
                    takers.setdefault(each.name, []).append(word)
        values = "VALUE is a number, a word, several with commas between, or a file: an array .npy, labelled .csv"
        group = parser.add_argument_group(f"options of {as_flag(self.flag)}", values)
        for name, words in takers.items():
            said = {_help_of(self.objects[word], name): None for word in words}  # each once, in order
            text = f"with {as_flag(self.flag)} {' or '.join(words)}: {' Or: '.join(said)}"
            how = _how(next(each for each in fields(self.objects[words[0]]) if each.name == name))
            dest = f"{self.flag}.{name}"
            group.add_argument(self._flag(name), dest=dest, default=argparse.SUPPRESS, help=help_text(text), **how)

    def made(self, args: argparse.Namespace, word: str | None, given: Mapping[str, Any]) -> Any:
        """The object that `word` stands for, or None for a word that stands for none.

        given : values of fields that other flags say.
        Raises ValueError for a flag that it does not take, and for one that it needs.
        """
        mine = f"{self.flag}."
        said = {key.removeprefix(mine): value for key, value in vars(args).items() if key.startswith(mine)}
        chosen = self.objects.get(word or "")
        takes = {} if chosen is None else {each.name: each for each in fields(chosen)}
        for name in said.keys() - takes:
            words = [each for each, made in self.objects.items() if name in {field.name for field in fields(made)}]
            wanted, found = f"{as_flag(self.flag)} {' or '.join(words)}", f"{as_flag(self.flag)} {word}"
            raise ValueError(f"{self._flag(name)} goes with {wanted}; got {found if word else 'none'}.")
        if chosen is None:
            return None
        said |= {name: given[name] for name in takes if name in given}
        for name, each in takes.items():
            if name not in said and each.default is MISSING and each.default_factory is MISSING:
                flag = as_flag(name) if name in self.known else self._flag(name)
                raise ValueError(f"{as_flag(self.flag)} {word} needs {flag}.")
        return chosen(**said)

    def _flag(self, field: str) -> str:
        return as_flag(self.prefix + field)


def as_flag(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"


def help_text(text: str) -> str:
    """As argparse, which fills in what follows a percent sign, shows it as it is."""
    return text.replace("%", "%%")


def argument_type(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read` for argparse, which shows the message of its own error only."""

    def read_word(text: str) -> Any:
        try:
            return read(text)
        except (ValueError, OSError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_word


def _how(field: Field[Any]) -> dict[str, Any]:
    if isinstance(field.default, bool):
        return {"action": "store_false" if field.default else "store_true"}
    if field.type == "bool | None":  # None leaves it to the program, and so does no flag
        return {"action": "store_true"}
    return {"metavar": "VALUE", "type": argument_type(field.metadata.get("command_line", _value))}


def _value(text: str) -> Any:
    """A number where the text is one, several values where it has commas, what an array's file holds, else the text.

    A .csv has the labels of its rows in the first column and those of its columns in the first row.
    """
    if text.endswith(".npy"):
        return np.load(text, allow_pickle=False)
    if text.endswith(".csv"):
        return pd.read_csv(text, index_col=0)
    if "," in text:
        return [_value(word) for word in text.split(",")]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _help_of(made: Any, name: str) -> str:
    """What the docstring of a class says of a field, from its name and a colon to the next one or an empty line."""
    names = rf"(?:\w+, )*{name}(?:, \w+)*"
    end = r"(?=  \w+(?:, \w+)* : |\n\w+(?:, \w+)* : |\n\n|  Source: |\Z)"
    found = re.search(rf"(?:^|  |\n){names} : (.*?){end}", inspect.getdoc(made) or "", re.DOTALL)
    if found is None:
        bases = [base for base in made.__mro__[1:] if name in getattr(base, "__dataclass_fields__", {})]
        return _help_of(bases[0], name) if bases else name
    return " ".join(found[1].split())
