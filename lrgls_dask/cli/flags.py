"""Flags made from the options of the estimator and from the objects that describe a Sigma; nothing is declared here."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from lrgls_dask.model import LowRankGLS
from lrgls_dask.options import DESCRIBED, OPTIONS

__all__ = ["add_model", "add_object_flags", "argument_type", "made_object", "model_of"]


def add_model(parser: argparse.ArgumentParser) -> None:
    """A flag for every option of `LowRankGLS`, and for every field of the objects that `covariance` may be."""
    group = parser.add_argument_group("options of the estimator")
    for option in OPTIONS.values():
        allowed = option.allowed
        how: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
        if allowed.form == "flag":
            how["action"] = "store_false" if option.default else "store_true"
        elif allowed.words:
            how["choices"] = allowed.words
        else:
            how |= {"metavar": allowed.written, "type": argument_type(allowed.read)}
        if allowed.form == "values":
            how["action"] = "append"
        shown = "" if option.default is None or allowed.form == "flag" else f" (default {option.default})"
        repeatable = " Repeatable." if allowed.form == "values" else ""
        group.add_argument(_flag(option.flag or option.name), help=_plain(f"{option.help}{repeatable}{shown}"), **how)
    add_object_flags(parser, DESCRIBED, "covariance", known=tuple(OPTIONS))


def model_of(args: argparse.Namespace) -> LowRankGLS:
    """The estimator that the flags describe. Raises TypeError or ValueError for flags that do not go together."""
    given = {name: value for name, value in vars(args).items() if name in OPTIONS}
    word = given.get("covariance", OPTIONS["covariance"].default)
    described = made_object(args, DESCRIBED, "covariance", word, given)
    if described is not None:
        taken = {each.name for each in fields(described)}
        given = {name: value for name, value in given.items() if name not in taken} | {"covariance": described}
    return LowRankGLS(**given)


# ------------------------------------------------------------------------------------------ objects of a registry


def add_object_flags(
    parser: argparse.ArgumentParser, objects: Mapping[str, Any], of: str, *, known: tuple[str, ...] = (), prefix: str = ""
) -> None:
    """A flag for every field of the dataclasses that the words of flag `of` stand for.

    known : fields that have a flag already.  prefix : of the flags, where their names mean something else elsewhere.
    A field whose metadata have "command_line" is read by that, or has no flag where that is a text, the reason.
    """
    named: dict[str, dict[str, Field[Any]]] = {}
    for word, made in objects.items():
        for each in fields(made):
            if each.name not in known and not isinstance(each.metadata.get("command_line"), str):
                named.setdefault(each.name, {})[word] = each
    group = parser.add_argument_group(f"options of {_flag(of)}")
    for name, takers in named.items():
        texts = {word: _help_of(objects[word], name) for word in takers}
        said = texts.popitem()[1] if len(set(texts.values())) == 1 else " ".join(f"{w}: {t}" for w, t in texts.items())
        how: dict[str, Any] = {"dest": f"{of}.{name}", "default": argparse.SUPPRESS}
        one = next(iter(takers.values()))
        if isinstance(one.default, bool):
            how["action"] = "store_true"
        else:
            how |= {"metavar": "VALUE", "type": argument_type(one.metadata.get("command_line", _value))}
        group.add_argument(_flag(prefix + name), help=_plain(f"with {_flag(of)} {' or '.join(takers)}: {said}"), **how)


def made_object(
    args: argparse.Namespace, objects: Mapping[str, Any], of: str, word: str, given: Mapping[str, Any], prefix: str = ""
) -> Any:
    """The object that `word` stands for, of its flags and of what is `given` to fields of other flags; None for no such.

    Raises ValueError for a flag that it does not take, and for one that is needed.
    """
    said = {key.removeprefix(f"{of}."): value for key, value in vars(args).items() if key.startswith(f"{of}.")}
    wanted = {each.name: each for each in fields(objects[word])} if word in objects else {}
    for name in said:
        if name not in wanted:
            takers = [other for other, made in objects.items() if name in {each.name for each in fields(made)}]
            raise ValueError(f"{_flag(prefix + name)} goes with {_flag(of)} {' or '.join(takers)}; got {_flag(of)} {word}.")
    if word not in objects:
        return None
    said |= {name: given[name] for name in wanted if name in given and name not in said}
    for name, each in wanted.items():
        if name not in said and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{_flag(of)} {word} needs {_flag(prefix + name)}.")
    return objects[word](**said)


# ---------------------------------------------------------------------------------------------------- words


def argument_type(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """`read` for argparse, which shows the message of its own error only."""

    def read_word(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_word


def _value(text: str) -> Any:
    """A number where the text is one, several values where it has commas, else the text."""
    if "," in text:
        return [_value(word) for word in text.split(",")]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _flag(name: str) -> str:
    return f"--{name.lower().replace('_', '-')}"


def _help_of(made: Any, name: str) -> str:
    """What the docstring of a class says of a field, from its name and a colon to the next one or an empty line."""
    found = re.search(rf"(?:^|  |\n){name} : (.*?)(?=  \w+ : |\n\w+ : |\n\n|\Z)", inspect.getdoc(made) or "", re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _plain(text: str) -> str:
    return text.replace("%", "%%")
