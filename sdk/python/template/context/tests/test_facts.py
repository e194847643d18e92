import unittest

from jit_plugin.testing import gather, problems, request
from facts import MyFacts

CONFIG = {"teams": [{"prefix": "payment-", "team": "payments"}]}


class MyFactsTest(unittest.TestCase):
    def test_a_workload_gets_the_team_of_its_prefix(self):
        self.assertEqual(gather(MyFacts, CONFIG, request()), {"team": "payments"})
        self.assertEqual(gather(MyFacts, CONFIG, request(workload="batch")), {})

    def test_a_prefix_that_fits_everybody_is_a_mistake(self):
        found = problems(MyFacts, {"teams": [{"prefix": "", "team": "all"}]})
        self.assertEqual([problem.path for problem in found], ["teams[0].prefix"])


if __name__ == "__main__":
    unittest.main()
