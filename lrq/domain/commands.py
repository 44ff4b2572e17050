"""Templates of commands that the user names in a setting: words of a shell, filled in one pass and run without one."""

import re
import shlex
from collections.abc import Mapping

_FIELD = re.compile(r"\{(\w+)\}")


def fill_command(template: str, values: Mapping[str, object]) -> list[str]:
    """Return the words of `template` with each {field} filled in from `values`.

    Raises ValueError for a template that names another field, leaves one out, or cannot be split into words.
    """
    words = shlex.split(template)
    named = {name for word in words for name in _FIELD.findall(word)}
    fields = " and ".join(f"{{{name}}}" for name in values)
    for name in sorted(named - values.keys()):
        raise ValueError(f"{{{name}}} is no field of a command; it has {fields}")
    for name in values.keys() - named:
        raise ValueError(f"the command names no {{{name}}}; it has {fields}")
    return [_FIELD.sub(lambda match: str(values[match[1]]), word) for word in words]
