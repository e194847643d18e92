"""Credentials of jit-broker for a Python process, with the standard library alone. Copy this file.

`CredentialWatch` gets an account and, before its lease ends, the next one. A thread does it, which
nothing but `close` ends: it catches everything, because a renewal that stopped after one exception would
be found out an hour later by all queries at once.
"""

import json
import logging
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field

log = logging.getLogger("jit_credentials")

RENEW_AT = 0.8  # of the lease's time; the rest is for retries
JITTER = 0.1  # earlier by up to this, so that instances do not renew in step
FIRST_WAIT, MOST_WAIT, ATTEMPTS = 2.0, 30.0, 5  # seconds; of one burst
START_DEADLINE = 120.0
REQUEST_TIMEOUT = 30.0
MOST_BYTES = 1 << 20
# No retry makes these better: the request itself is wrong or forbidden.
FINAL = {"invalid-request", "policy-denied", "role-not-allowed", "unknown-target", "unauthenticated",
         "payload-too-large", "unsupported-media-type"}  # fmt: skip


@dataclass(frozen=True)
class Credential:
    """An account for as long as its lease."""

    lease_id: str
    username: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str
    renew_at: float  # by time.monotonic, which no change of the clock moves
    expires_at: float
    ttl: float


class BrokerError(Exception):
    """What the broker answered, or that it did not."""

    def __init__(self, code, detail, retry_after=None):
        super().__init__(f"{code}: {detail}")
        self.code, self.retry_after = code, retry_after


class CredentialWatch:
    """Keeps `credential` good until `close`. `on_change` is called with each new one."""

    def __init__(self, broker, target, token_file, *, ca=None, role=None, on_change=lambda credential: None):
        self._broker, self._token_file, self._on_change = broker.rstrip("/"), token_file, on_change
        self._request = {"target": target} | ({"role": role} if role else {})
        self._tls = ssl.create_default_context(cafile=ca)
        self._stop = threading.Event()
        # Fails fast: there is no old password to fall back to, and must not be.
        self.credential = self._fetch(deadline=time.monotonic() + START_DEADLINE)
        self._thread = threading.Thread(target=self._run, name="jit-credentials", daemon=True)
        self._thread.start()

    def close(self):
        """Ends the renewals and gives the account back."""
        self._stop.set()
        self._thread.join()
        try:
            self._post(f"/v1/leases/{self.credential.lease_id}/revoke", {})
        except Exception as error:  # the broker ends the lease by itself, later
            log.warning("the lease could not be given back: %s", error)

    def _run(self):
        while not self._stop.wait(max(0.0, self.credential.renew_at - time.monotonic())):
            try:
                self.credential = self._fetch()
            except Exception:
                if self._stop.is_set():
                    return
                log.exception("renewal failed; it goes on")
                self._stop.wait(FIRST_WAIT)
                continue
            try:
                self._on_change(self.credential)
            except Exception:
                log.exception("on_change failed")

    def _fetch(self, deadline=None):
        """Bursts of attempts until one succeeds, the deadline passes or `close` is called."""
        # One key for all attempts: an answer that was lost must not make two accounts.
        key, failed = str(uuid.uuid4()), 0
        while True:
            try:
                return self._issue(key)
            except BrokerError as error:
                failed += 1
                late = deadline is not None and time.monotonic() >= deadline
                if deadline is not None and (late or error.code in FINAL):
                    raise
                wait = random.uniform(0, min(MOST_WAIT, FIRST_WAIT * 2 ** ((failed - 1) % ATTEMPTS)))
                if failed % ATTEMPTS == 0:
                    log.error("jit-broker-unreachable: %s attempts failed, the last with %s", failed, error)
                    wait = random.uniform(MOST_WAIT / 2, MOST_WAIT)
                if error.code in ("idempotency-conflict", "lease-not-active"):
                    key = str(uuid.uuid4())  # the account of an earlier attempt is gone
                wait = max(wait, min(error.retry_after or 0.0, 300.0))
                if deadline is not None:
                    wait = min(wait, max(0.0, deadline - time.monotonic()))
            if self._stop.wait(wait):
                raise BrokerError("stopped", "close was called")

    def _issue(self, key):
        asked = time.monotonic()  # before the request: the lease cannot have begun earlier
        reply = self._post("/issue", self._request, {"idempotency-key": key})
        ttl, connection = float(reply["ttl_seconds"]), reply["connection"]
        return Credential(
            lease_id=reply["lease_id"],
            username=reply["credential"]["username"],
            password=reply["credential"]["password"],
            host=connection["host"],
            port=connection["port"],
            database=connection["database"],
            renew_at=asked + ttl * (RENEW_AT - random.uniform(0, JITTER)),
            expires_at=asked + ttl,
            ttl=ttl,
        )

    def _post(self, path, body, headers=None):
        try:
            with open(self._token_file, encoding="ascii") as file:  # each time: the platform replaces it
                token = file.read().strip()
            request = urllib.request.Request(
                self._broker + path,
                data=json.dumps(body).encode(),
                headers={"authorization": f"Bearer {token}", "content-type": "application/json"} | (headers or {}),
            )
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT, context=self._tls) as reply:
                return json.loads(reply.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            try:
                problem = json.loads(error.read(MOST_BYTES))
            except ValueError:
                problem = {}
            retry_after = error.headers.get("retry-after", "")
            raise BrokerError(
                problem.get("code", f"status {error.code}"),
                problem.get("detail", "no details"),
                float(retry_after) if retry_after.isdigit() else None,
            ) from None
        except (OSError, ValueError) as error:
            raise BrokerError("no-answer", error) from error
