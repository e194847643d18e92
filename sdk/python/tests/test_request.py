import unittest
from dataclasses import dataclass

from jit_plugin import Allow, Deny, Policy, Request, Uncounted
from jit_plugin.testing import decide, request


class Host:
    """Notes what is read, as the broker does."""

    def __init__(self):
        self.read = []

    def __getattr__(self, name):
        def call(*arguments):
            self.read.append(" ".join([name, *arguments]))
            if arguments:
                return {"env": "prod"}.get(arguments[0])
            return [("env", "prod"), ("team", "x")] if name == "attributes" else "reader"

        return call


@dataclass
class Config:
    pass


class Open(Policy[Config]):
    def decide(self, config, request):
        return Allow()


class Exchanges(Open):
    operations = ("exchange",)


class RequestTest(unittest.TestCase):
    def test_each_thing_is_read_when_it_is_used_and_once(self):
        host = Host()
        asked = Request(host)
        self.assertEqual(host.read, [])
        self.assertEqual(asked.role + asked.role, "readerreader")
        self.assertEqual((asked.attributes["env"], asked.attributes.get("env")), ("prod", "prod"))
        self.assertTrue("env" in asked.attributes and "nothing" not in asked.attributes)
        with self.assertRaises(KeyError):
            asked.attributes["nothing"]
        self.assertEqual(host.read, ["role", "attribute env", "attribute nothing"])
        self.assertEqual(dict(asked.attributes), {"env": "prod", "team": "x"})
        self.assertEqual((asked.attributes["team"], len(asked.attributes)), ("x", 2))
        self.assertEqual(host.read[3:], ["attributes"])

    def test_what_is_no_name_is_not_asked_for(self):
        host = Host()
        asked = Request(host)
        self.assertEqual((asked.attributes.get("\ud800"), 7 in asked.attributes), (None, False))
        self.assertEqual(host.read, [])

    def test_a_request_cannot_be_changed(self):
        with self.assertRaises(AttributeError):
            request().role = "owner"
        with self.assertRaises(TypeError):
            request().attributes["env"] = "dev"

    def test_counts_are_read_by_scope_and_window_and_what_is_no_count_denies(self):
        usage = request(facts={"usage.workload.requests.60": "7", "usage.target.leases": "+3"}).usage
        self.assertEqual(usage.requests("workload", 60), 7)
        for ask in (lambda: usage.requests("workload", 61), lambda: usage.leases("target")):
            with self.assertRaises(Uncounted):
                ask()
        with self.assertRaisesRegex(ValueError, "workload_target"):
            usage.leases("everybody")

    def test_an_operation_that_a_policy_does_not_know_is_denied(self):
        self.assertEqual(decide(Open, {}, request(operation="renew")), Allow())
        denied = decide(Open, {}, request(operation="exchange"))
        self.assertIsInstance(denied, Deny)
        self.assertIn("does not know the operation 'exchange'", denied.reason)
        self.assertEqual(decide(Exchanges, {}, request(operation="exchange")), Allow())
        self.assertIsInstance(decide(Exchanges, {}, request()), Deny)

    def test_a_test_cannot_ask_for_a_field_that_no_request_has(self):
        with self.assertRaisesRegex(TypeError, "a request has no attribute:"):
            request(attribute={})


if __name__ == "__main__":
    unittest.main()
