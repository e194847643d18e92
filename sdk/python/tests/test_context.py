import json
import unittest
from dataclasses import dataclass

from jit_plugin import Allow, Context, Deny, HttpContext, Policy, Refused, register_context, registered
from jit_plugin.checks import WrongAnswer
from jit_plugin.config import Problems
from jit_plugin.places import in_a_line
from jit_plugin.testing import FakeHttp, Reply, decide, gather, request


@dataclass
class Config:
    prefix: str = ""


class Team(Context[Config]):
    def gather(self, config, request):
        return {"team": "payments"} if request.workload.startswith(config.prefix) else {}


class Asks(HttpContext[Config]):
    def gather(self, http, config, request):
        return {"score": str(http.send("GET", ["hosts", request.workload]).json()["score"])}


class Empty(Context[Config]):
    pass


class Gives(Context[Config]):
    answer = None

    def gather(self, config, request):
        return self.answer


class ContextTest(unittest.TestCase):
    def test_facts_come_from_configuration_request_and_server(self):
        self.assertEqual(gather(Team, {"prefix": "payment-"}, request()), {"team": "payments"})
        self.assertEqual(gather(Team, {"prefix": "payment-"}, request(workload="batch")), {})
        http = FakeHttp(Reply(json={"score": 87}))
        self.assertEqual(gather(Asks, {}, request(), http), {"score": "87"})
        self.assertEqual(http.lines, ["GET /hosts/payment-service"])
        with self.assertRaises(TypeError):
            gather(Asks, {}, request())
        with self.assertRaises(Problems):
            gather(Team, {"prefx": ""}, request())

    def test_facts_are_texts(self):
        for answer in (None, ["a"], {"a": 1}, {1: "a"}, {"a": None}, "a"):
            with self.assertRaises(WrongAnswer, msg=answer) as told:
                gather(type("Given", (Gives,), {"answer": answer}), {}, request())
            self.assertRegex(in_a_line(told.exception), r"^WrongAnswer: gather .*\(tests/test_context.py:\d+ in gather\)$")

    def test_a_plugin_is_one_context_provider(self):
        registered.plugins.clear()
        with self.assertRaisesRegex(TypeError, "has no gather"):
            register_context(Empty)
        with self.assertRaisesRegex(TypeError, "is no context provider"):
            register_context(Config)
        register_context(Team)
        with self.assertRaises(TypeError):
            register_context(Asks)
        registered.plugins.clear()


class PlacesTest(unittest.TestCase):
    def told(self, function):
        try:
            function()
        except BaseException as error:
            return in_a_line(error)

    def test_the_place_is_the_authors_and_of_no_library(self):
        def parses():
            return json.loads("{")

        def misuses():
            return Allow(reason=None)

        self.assertRegex(self.told(parses), r"^JSONDecodeError: .*\(tests/test_context.py:\d+ in parses\)$")
        self.assertRegex(
            self.told(misuses), r"^TypeError: reason must be a str, not None \(tests/test_context.py:\d+ in misuses\)$"
        )

    def test_a_long_text_leaves_room_for_the_place(self):
        def raises():
            raise ValueError("x" * 5000)

        told = self.told(raises)
        self.assertTrue(len(told) < 800 and told.endswith("in raises)"), told)

    def test_an_exception_without_a_text_has_its_name(self):
        def raises():
            raise MemoryError

        self.assertRegex(self.told(raises), r"^MemoryError \(tests/test_context.py:\d+ in raises\)$")

    def test_what_is_said_on_purpose_has_no_name_of_a_class(self):
        def raises():
            raise Refused("the server answered 400")

        self.assertRegex(self.told(raises), r"^the server answered 400 \(")

    def test_a_wrong_verdict_is_told_where_it_is_given(self):
        class Yes(Policy[Config]):
            def decide(self, config, request):
                return True

        def asks():
            return decide(Yes, {}, request())

        told = r"decide must return Allow or Deny, not bool \(tests/test_context.py:\d+ in decide\)"
        self.assertRegex(self.told(asks), told)
        for wrong in (
            lambda: Allow(labels={"a": 1}),
            lambda: Allow(requires="ticket"),
            lambda: Allow(role=7),
            lambda: Deny(None),
            lambda: Deny("\ud800"),
        ):
            with self.assertRaises((TypeError, ValueError)):
                wrong()


if __name__ == "__main__":
    unittest.main()
