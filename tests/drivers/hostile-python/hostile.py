"""A driver that makes, by its configuration, the mistakes that drivers make. What is told of each names its place here."""

import json
import sys
import time
from dataclasses import dataclass

from jit_plugin import AccountState, Description, Feature, HttpDriver, Issued, register_driver


@dataclass
class TargetConfig:
    mode: str


@dataclass
class RoleConfig:
    pass


class Hostile(HttpDriver[TargetConfig, RoleConfig]):
    def describe(self):
        return Description(max_name_length=64, features=[Feature.INSPECT])

    def validate(self, http, target, roles):
        return getattr(self, target.config.mode, self.nothing)(http)

    def nothing(self, http):
        return []

    def raises(self, http):
        return {}["no such key"]

    def yields(self, http):
        yield {}["no such key"]

    def misuses_the_sdk(self, http):
        http.send("GET", "users")

    def parses(self, http):
        return json.loads("{")

    def returns_a_number(self, http):
        return 7

    def shows_a_secret(self, http):
        return f"Bearer {http.credential('token')}"

    def waits(self, http):
        time.sleep(1)

    def loops(self, http):
        while True:
            pass

    def grows(self, http):
        return bytearray(1 << 28)

    def recurses(self, http):
        return [self.recurses(http)]

    def leaves(self, http):
        sys.exit(0)

    def hoards(self, http):
        return [http.credential("token") for _ in range(100)]

    def create(self, http, target, role, account, password):
        if target.config.mode == "created_text":
            return account.name
        if target.config.mode == "gives_back":
            return Issued(secret=password)
        if target.config.mode == "sends_first":
            http.send("POST", ["users"], json={"password": password})
        raise ValueError("create is broken")

    def revoke(self, http, target, account):
        pass

    def inspect(self, http, target, name):
        return AccountState(can_login="yes")


register_driver(Hostile)
