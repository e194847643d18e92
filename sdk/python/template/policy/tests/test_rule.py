import unittest

from jit_plugin import Allow, Deny
from jit_plugin.testing import decide, problems, request
from rule import MyRule

CONFIG = {"environments": ["prod"], "max_ttl": "30m"}


class MyRuleTest(unittest.TestCase):
    def test_a_workload_of_the_environment_is_allowed(self):
        answer = decide(MyRule, CONFIG, request(attributes={"env": "prod"}))
        self.assertIsInstance(answer, Allow)
        self.assertEqual(answer.max_ttl_seconds, 1800)

    def test_others_are_denied_and_told_why(self):
        for attributes in ({}, {"env": "dev"}, {"env": "prod\n"}, {"env": "PROD"}):
            answer = decide(MyRule, CONFIG, request(attributes=attributes))
            self.assertIsInstance(answer, Deny, attributes)
            self.assertIn("only workloads of prod", answer.reason)

    def test_some_roles_need_a_ticket(self):
        config = {**CONFIG, "need_ticket": ["app_read_write"]}
        answer = decide(MyRule, config, request(role="app_read_write", attributes={"env": "prod"}))
        self.assertEqual(answer.requires, ["ticket"])

    def test_a_configuration_is_checked(self):
        self.assertEqual([problem.path for problem in problems(MyRule, {"environments": []})], ["environments"])
        self.assertIn("write `environments`", problems(MyRule, {"environment": []})[0].message)


if __name__ == "__main__":
    unittest.main()
