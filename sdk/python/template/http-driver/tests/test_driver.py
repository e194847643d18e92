import unittest

from jit_plugin import Conflict, InvalidConfig, OutcomeUnknown, PluginError, Refused, Retryable
from jit_plugin.testing import FakeHttp, Reply, account, driver, lost, secret
from driver import TOKEN, MyHttpDriver

ROLES = {"reader": {"group": "readers"}}


def server(answer):
    return FakeHttp(answer, secrets={TOKEN: "the-brokers-token"})


def empty(answer):
    """Without accounts: it answers a question with 404, and a creation as it is told to."""

    def answers(sent):
        if sent.line.startswith("GET "):
            return Reply(404)
        return answer(sent) if callable(answer) else answer

    return server(answers)


def create(http):
    return driver(MyHttpDriver, http, roles=ROLES).create("reader", account("v-a"), secret("pw"))


class MyHttpDriverTest(unittest.TestCase):
    def test_an_account_expires_in_the_step_that_makes_it(self):
        http = empty(Reply(201, json={}))
        create(http)
        [asked, sent] = http.sent
        self.assertEqual(asked.line, "GET /users/v-a")
        self.assertEqual(sent.line, "POST /users")
        self.assertEqual(sent.json()["expires_at"], 1_800_003_600)
        # Placed by the host: the driver has only handles.
        self.assertEqual(sent.json()["password"], "<pw>")
        self.assertEqual(sent.headers["authorization"], "Bearer <the-brokers-token>")

    def test_each_answer_tells_what_the_host_has_to_do(self):
        for status, error in ((409, Conflict), (403, Refused), (503, Retryable), (500, OutcomeUnknown)):
            with self.assertRaises(error, msg=status):
                create(empty(Reply(status)))

        def loses(sent):
            raise lost()

        with self.assertRaises(OutcomeUnknown):
            create(empty(loses))
        # A name that is taken is found by the question, and a lost question leaves nothing in doubt.
        with self.assertRaises(Conflict):
            create(server(Reply(json={})))
        with self.assertRaises(Retryable):
            create(server(loses))

    def test_revoking_what_is_not_there_is_success(self):
        driver(MyHttpDriver, server(Reply(404))).revoke(account("v-a"))
        with self.assertRaises(PluginError):
            driver(MyHttpDriver, server(Reply(500))).revoke(account("v-a"))

    def test_names_are_listed_by_page(self):
        http = server(Reply(json={"names": ["v-a"], "next": "v-a"}))
        page = driver(MyHttpDriver, http).list_accounts("v-")
        self.assertEqual((page.names, page.next), (["v-a"], "v-a"))
        self.assertEqual(http.lines, ["GET /users?prefix=v-&after="])

    def test_a_configuration_is_checked(self):
        with self.assertRaises(InvalidConfig) as told:
            driver(MyHttpDriver, server(Reply()), roles={"reader": {"group": ""}}).validate()
        self.assertEqual([problem.path for problem in told.exception.problems], ["roles.reader.group"])


if __name__ == "__main__":
    unittest.main()
