"""What the API reference says of each action: the fields of its answer with their types, and those
that are always sent. `actions.json` was written from the reference and the captured wire format.
"""

import json
import pathlib

ACTIONS = json.loads(pathlib.Path(__file__).with_name("actions.json").read_text())
TYPES = {"str": str, "int": int, "float": (int, float), "bool": bool}


def is_of(value, expected):
    """A bool is an int to Python, and is none here."""
    return isinstance(value, TYPES[expected]) and isinstance(value, bool) == (expected == "bool")


class Reference:
    """Holds answers against the reference and remembers what is wrong."""

    def __init__(self):
        self.problems = []
        self.seen = {}

    def check(self, action, answer):
        """An answer has no field that the reference does not have, and none of another type."""
        known = ACTIONS[action]
        self._compare(action, known["answer"], answer, "")
        found = self.seen.setdefault(action, set())
        for path in known["always"]:
            self._require(action, path, answer, path.split("."), found)

    def never_seen(self):
        """Fields that are always sent and that no answer had a chance to show."""
        return [
            f"{action}: {path}"
            for action in sorted(self.seen)
            for path in ACTIONS[action]["always"]
            if path not in self.seen[action]
        ]

    def _compare(self, action, expected, value, path):
        if isinstance(expected, dict):
            if not isinstance(value, dict):
                self._wrong(action, path, f"is {value!r} and no object")
                return
            for name, inner in value.items():
                if name in expected:
                    self._compare(action, expected[name], inner, f"{path}.{name}")
                else:
                    self._wrong(action, f"{path}.{name}", "is not in the reference")
        elif isinstance(expected, list):
            if not isinstance(value, list):
                self._wrong(action, path, f"is {value!r} and no list")
                return
            for inner in value:
                self._compare(action, expected[0], inner, f"{path}[]")
        elif not is_of(value, expected):
            self._wrong(action, path, f"is {value!r} and no {expected}")

    def _require(self, action, path, value, names, found):
        if not names:
            found.add(path)
            return
        name, is_list = names[0].removesuffix("[]"), names[0].endswith("[]")
        if not isinstance(value, dict) or name not in value:
            self._wrong(action, path, "is always sent and was not")
        elif is_list:
            for inner in value[name]:
                self._require(action, path, inner, names[1:], found)
        else:
            self._require(action, path, value[name], names[1:], found)

    def _wrong(self, action, path, what):
        problem = f"{action}: {path.removeprefix('.')} {what}"
        if problem not in self.problems:
            self.problems.append(problem)
