import unittest
from dataclasses import dataclass

from jit_plugin import Allow, Deny, Policy, log, register_policy
from jit_plugin.config import Problems
from jit_plugin.testing import decide, request


@dataclass
class Config:
    workload: str


class OneWorkload(Policy[Config]):
    def decide(self, config, request):
        log.info("asked", workload=request.workload, at=request.time)
        return Allow() if request.workload == config.workload else Deny("another workload")


class Narrower(OneWorkload):
    pass


class PolicyTest(unittest.TestCase):
    def test_it_decides(self):
        self.assertEqual(decide(OneWorkload, {"workload": "payment-service"}, request()), Allow())
        self.assertEqual(decide(OneWorkload, {"workload": "other"}, request()), Deny("another workload"))

    def test_a_wrong_configuration_is_never_decided_with(self):
        with self.assertRaises(Problems):
            decide(OneWorkload, {}, request())

    def test_what_it_logs_can_be_looked_at(self):
        log.records.clear()
        decide(OneWorkload, {"workload": "x"}, request())
        self.assertEqual(log.records, [("info", "asked", {"workload": "payment-service", "at": "1800000000"})])

    def test_the_configurations_type_is_found_through_ancestors(self):
        self.assertIs(Narrower.config_type(), Config)
        with self.assertRaises(TypeError):
            type("Bare", (Policy,), {}).config_type()

    def test_a_plugin_is_one_policy(self):
        register_policy(OneWorkload)
        register_policy(OneWorkload)
        with self.assertRaises(TypeError):
            register_policy(Narrower)

    def test_a_cap_is_a_number_of_seconds(self):
        for wrong in (-1, 0, 1.5, True, "60"):
            with self.assertRaises(ValueError, msg=repr(wrong)):
                Allow(max_ttl_seconds=wrong)

    def test_an_answer_of_another_type_is_refused(self):
        class Yes(Policy[Config]):
            def decide(self, config, request):
                return True

        with self.assertRaises(TypeError):
            decide(Yes, {"workload": "x"}, request())


if __name__ == "__main__":
    unittest.main()
