import json
import unittest
from dataclasses import dataclass, field
from typing import Literal

from jit_plugin import Seconds
from jit_plugin.config import MAX_CONFIG, Problems, parse


@dataclass
class Rule:
    workload: str
    roles: list[str] = field(default_factory=list)


@dataclass
class Config:
    rules: list[Rule]
    cap: Seconds = Seconds(60)
    mode: Literal["strict", "lax"] = "strict"
    weights: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    on: bool = True
    most: int = 3

    def __post_init__(self):
        if self.most > 9:
            raise ValueError("`most` is 9 at most")


def told(value):
    try:
        parse(Config, value if isinstance(value, str) else json.dumps(value))
    except Problems as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


class ConfigTest(unittest.TestCase):
    def test_values_get_their_types(self):
        config = parse(Config, json.dumps({"rules": [{"workload": "a", "roles": ["r"]}], "cap": "1h30m", "weights": {"x": 1}}))
        self.assertEqual(config.rules, [Rule("a", ["r"])])
        self.assertEqual(config.cap, 5400)
        self.assertEqual(config.weights, {"x": 1.0})
        self.assertIsNone(config.note)

    def test_every_mistake_is_told_with_its_place(self):
        wrong = {"rules": [{"workload": 7}, {"roles": ["a", True]}, 3], "cap": "soon", "mode": "hard", "on": 1, "most": True}
        places = [path for path, _ in told(wrong)]
        self.assertEqual(
            places, ["rules[0].workload", "rules[1].roles[1]", "rules[1]", "rules[2]", "cap", "mode", "on", "most"]
        )

    def test_a_misspelt_key_is_told_the_right_one(self):
        self.assertEqual(told({"rules": [], "mod": "lax"}), [("mod", "is not a key that this plugin has: write `mode`")])
        self.assertIn("there are: rules", told({"rules": [], "entirely": 1})[0][1])
        self.assertEqual(told({}), [("", "`rules` is missing: add `rules = …`")])
        self.assertEqual(told(""), [("", "`rules` is missing: add `rules = …`")])

    def test_what_the_dataclass_refuses_is_a_problem(self):
        self.assertEqual(told({"rules": [], "most": 10}), [("", "`most` is 9 at most")])

    def test_hostile_texts_are_problems(self):
        for text in ("[", "[]", "7", '"x"', "{" * 100, '{"rules": [], "rules\\u0000": 1}', '{"rules": NaN}'):
            self.assertTrue(told(text), text)
        self.assertIn("longer than", told(" " * (MAX_CONFIG + 1))[0][1])

    def test_durations(self):
        for text, seconds in (("90s", 90), ("30m", 1800), ("1h30m", 5400), ("7d", 604800), ("1d1h1m1s", 90061), ("45", 45), (5, 5)):
            self.assertEqual(Seconds.parse(text), seconds)
        for wrong in ("", "s", "1h30", "30m1h", "1h1h", "1.5h", "1H", "1 h", "-1s", "0s", 0, -5, True, 1.5, None, "9" * 40 + "s", "999999999d", "١s"):
            with self.assertRaises(ValueError, msg=repr(wrong)):
                Seconds.parse(wrong)


if __name__ == "__main__":
    unittest.main()
