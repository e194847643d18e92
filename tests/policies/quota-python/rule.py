"""A policy that decides by what the host counts, and by where the caller is and what the request is about."""

from dataclasses import dataclass

from jit_plugin import Allow, Deny, Policy, Seconds, register_policy


@dataclass
class Config:
    requests: int
    window: Seconds
    leases: int


class Quota(Policy[Config]):
    def windows(self, config):
        return [config.window]

    def decide(self, config, request):
        count = request.usage.requests("workload", config.window)
        if count > config.requests:
            return Deny(f"this is request {count} of {config.requests}")
        if request.operation == "issue" and request.usage.leases("workload_target") > config.leases:
            return Deny("too many live leases")
        about = request.resource.get("lease", "nothing")
        return Allow(reason=f"request {count}", labels={"from": request.caller_address or "nowhere", "about": about})


register_policy(Quota)
