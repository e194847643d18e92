import unittest
from dataclasses import dataclass

from jit_plugin import (
    AccountPage,
    AccountState,
    Description,
    Failed,
    Feature,
    HttpDriver,
    InvalidConfig,
    Issued,
    Problem,
    RotationStep,
    register_driver,
)
from jit_plugin import registered
from jit_plugin.checks import WrongAnswer
from jit_plugin.testing import FakeHttp, Reply, account, driver, secret


@dataclass
class Target:
    size: int = 1


@dataclass
class Role:
    group: str


class Says(HttpDriver[Target, Role]):
    """A driver that answers what a test wants."""

    answer = None

    def describe(self):
        return Description(max_name_length=64, features=[Feature.RENEW])

    def validate(self, http, target, roles):
        for role in roles:
            if role.config.group == "":
                yield Problem(f"roles.{role.name}.group", "is empty")

    def create(self, http, target, role, account, password):
        return self.answer(password) if callable(self.answer) else self.answer

    def revoke(self, http, target, account):
        pass

    def renew(self, http, target, role, account):
        return self.answer

    def inspect(self, http, target, name):
        return self.answer

    def list_accounts(self, http, target, prefix, cursor):
        return self.answer

    def maintain(self, http, target):
        return self.answer

    def place(self, http, target):
        return self.answer


class Empty(HttpDriver[Target, Role]):
    pass


def saying(answer):
    made = type("Saying", (Says,), {"answer": staticmethod(answer) if callable(answer) else answer})
    return driver(made, FakeHttp(Reply()), roles={"reader": {"group": "readers"}})


class DriverTest(unittest.TestCase):
    def test_every_mistake_of_a_target_and_its_roles_is_told_at_once(self):
        roles = {"good": {"group": "a"}, "bad": {"group": 7}, "misspelt": {"groups": "a"}}
        with self.assertRaises(InvalidConfig) as told:
            driver(Says, FakeHttp(Reply()), config={"size": "x"}, roles=roles).validate()
        places = [problem.path for problem in told.exception.problems]
        self.assertEqual(places, ["size", "roles.bad.group", "roles.misspelt.groups", "roles.misspelt"])
        driver(Says, FakeHttp(Reply()), roles={"good": {"group": "a"}}).validate()
        with self.assertRaises(InvalidConfig):
            driver(Says, FakeHttp(Reply()), roles={"bad": {"group": ""}}).validate()

    def test_an_answer_of_another_type_is_told_with_the_function(self):
        calls = {
            "create": lambda called: called.create("reader", account("v-a"), secret("pw")),
            "renew": lambda called: called.renew("reader", account("v-a")),
            "inspect": lambda called: called.inspect("v-a"),
            "list_accounts": lambda called: called.list_accounts("v-"),
            "maintain": lambda called: called.maintain(),
            "place": lambda called: called.place(),
        }
        for name, call in calls.items():
            for answer in ("text", True, -1, {"a": 1}, ["a"]):
                with self.assertRaises(WrongAnswer, msg=(name, answer)) as told:
                    call(saying(answer))
                self.assertIn(name, str(told.exception))
        self.assertEqual(saying(None).create("reader", account("v-a"), secret("pw")), Issued())
        self.assertEqual(saying(7).renew("reader", account("v-a")), 7)
        self.assertEqual(saying({"mount": "a"}).place(), {"mount": "a"})

    def test_a_record_with_a_wrong_type_cannot_be_made(self):
        for wrong in (
            lambda: Issued(username=7),
            lambda: Issued(expires_at=-1),
            lambda: Issued(properties={"a": 1}),
            lambda: Issued(secret="pw"),
            lambda: AccountState(can_login=1),
            lambda: AccountState(can_login=True, expires_at="soon"),
            lambda: AccountPage("v-a"),
            lambda: AccountPage(["v-a"], next=7),
            lambda: Description(max_name_length=0),
            lambda: Description(max_name_length=64, features=["renew"]),
            lambda: Problem("path", None),
        ):
            with self.assertRaises((TypeError, ValueError)):
                wrong()

    def test_the_hosts_own_password_cannot_be_issued(self):
        with self.assertRaises(ValueError):
            saying(lambda password: Issued(secret=password)).create("reader", account("v-a"), secret("pw"))
        withheld = FakeHttp(Reply(json={"pw": "x"})).send("GET", ["a"], withhold=["/pw"]).withheld[0]
        issued = saying(lambda password: Issued(secret=withheld)).create("reader", account("v-a"), secret("pw"))
        self.assertIs(issued.secret, withheld)

    def test_what_a_driver_does_not_have_is_a_failure(self):
        with self.assertRaises(Failed):
            driver(Says, FakeHttp(Reply())).rotate(account("v-a"), RotationStep.STAGE, secret("pw"))

    def test_a_component_is_one_driver_with_the_verbs_that_it_needs(self):
        registered.plugins.clear()
        with self.assertRaisesRegex(TypeError, "has no describe and no create and no revoke"):
            register_driver(Empty)
        with self.assertRaisesRegex(TypeError, "say what its configuration is"):
            register_driver(type("Bare", (HttpDriver,), {"describe": 1, "create": 1, "revoke": 1}))
        with self.assertRaisesRegex(TypeError, "is no driver"):
            register_driver(Target)
        register_driver(Says)
        register_driver(Says)
        with self.assertRaisesRegex(TypeError, "Says is registered already"):
            register_driver(type("Other", (Says,), {}))
        with self.assertRaisesRegex(TypeError, "Says is a driver, and the manifest says that it is a policy"):
            registered.the("policy", "register_policy(MyRule)")
        registered.plugins.clear()
        with self.assertRaisesRegex(TypeError, "registers no driver"):
            registered.the("driver", "register_driver(MyDriver)")


if __name__ == "__main__":
    unittest.main()
