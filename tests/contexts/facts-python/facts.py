"""A context provider that asks a server about the workload, or makes the mistakes that providers make."""

import json
from dataclasses import dataclass

from jit_plugin import HttpContext, register_context


@dataclass
class Config:
    mode: str = "asks"


class Facts(HttpContext[Config]):
    def gather(self, http, config, request):
        return getattr(self, config.mode)(http, request)

    def asks(self, http, request):
        headers = {"authorization": ["Bearer ", http.credential("token")]}
        answer = http.send("GET", ["hosts", request.workload], headers=headers)
        return {"score": str(answer.json()["score"])} if answer.status == 200 else {"score": "0"}

    def raises(self, http, request):
        return {"score": {}["no such key"]}

    def parses(self, http, request):
        return json.loads("{")

    def gives_a_list(self, http, request):
        return ["score"]

    def gives_a_number(self, http, request):
        return {"score": 7}

    def loops(self, http, request):
        while True:
            pass


register_context(Facts)
