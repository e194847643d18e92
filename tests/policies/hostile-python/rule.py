"""A policy that tries, by its configuration, what no policy may do or can do. Its cases say what comes of it."""

import os
import random
import sys
import time
from dataclasses import dataclass

from jit_plugin import Allow, Policy, register_policy

# What is made while the component is built is there in every call, and changes to it are not.
SEEN = []


@dataclass
class Config:
    mode: str


class Hostile(Policy[Config]):
    def validate(self, config):
        if config.mode == "refuse":
            raise RuntimeError("validate is broken")
        return ()

    def decide(self, config, request):
        return Allow(reason=str(getattr(self, config.mode)(request)))

    def clock(self, request):
        return time.time()

    def waits(self, request):
        time.sleep(10)

    def chance(self, request):
        return [random.random(), random.randrange(1 << 60)]

    def secrets(self, request):
        return os.urandom(8).hex()

    def order(self, request):
        return list({"a", "b", "c", request.workload, request.target})

    def remembers(self, request):
        SEEN.append(request.workload)
        return len(SEEN)

    def environment(self, request):
        return sorted(name for name in os.environ if not name.startswith(("PYTHON", "COMPONENTIZE_PY_")))

    def reads(self, request):
        return open("/etc/passwd").read()

    def lists(self, request):
        return os.listdir("/")

    def connects(self, request):
        import socket

        socket.create_connection(("127.0.0.1", 80))

    def runs(self, request):
        return os.system("true")

    def loops(self, request):
        while True:
            pass

    def grows(self, request):
        return len(bytearray(1 << 28))

    def recurses(self, request):
        return self.recurses(request) + 1

    def leaves(self, request):
        sys.exit(0)

    def broken_text(self, request):
        return "\ud800"

    def floods(self, request):
        return "x" * (8 << 20)

    def forges(self, request):
        return "ok\n2026-01-05 granted \x1b[31m\u202e"


class NoAnswer(Hostile):
    def decide(self, config, request):
        if config.mode == "no_answer":
            return True
        if config.mode == "wrong_requirement":
            return Allow(requires=["luck"])
        if config.mode == "negative":
            return Allow(max_ttl_seconds=-1)
        return super().decide(config, request)


register_policy(NoAnswer)
