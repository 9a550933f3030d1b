"""The one parser of YAML: plain data without anchors or tags, at most 64 levels deep."""

from __future__ import annotations

from typing import Any

import yaml

from driftline.core.errors import ConfigError
from driftline.core.limits import MAX_JSON_DEPTH


def parse(text: str, where: str) -> Any:
    """What the YAML says. Raises ConfigError with the place."""
    try:
        _check(text, where)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is a scalar that looks like a date or a number and is none, such as 2020-13-45.
        raise ConfigError(f"{where}: expected YAML: {' '.join(str(error).split())}") from error


def _check(text: str, where: str) -> None:
    """The events come without recursion, and before anything is built of them.

    Anchors could make ten lines stand for gigabytes; PyYAML meets some tags with exceptions of any kind.
    """
    level = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = where if event.start_mark is None else f"{where}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.CollectionStartEvent):
            level += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            level -= 1
        if level > MAX_JSON_DEPTH:
            raise ConfigError(f"{place}: expected at most {MAX_JSON_DEPTH} levels of nesting")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{place}: anchors and aliases are not taken; write the value out")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{place}: tags such as {tag} are not taken")
