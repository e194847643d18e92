"""A service that queries all the time, and never notices that its account changes."""

import json
import logging
import os
import signal
import threading

import psycopg
import psycopg_pool

from jit_credentials import CredentialWatch

stop = threading.Event()
lock = threading.Lock()
ok, failed, accounts = 0, 0, set()

watch = CredentialWatch(
    os.environ["JIT_BROKER_URL"],
    os.environ.get("JIT_TARGET", "inventory_db"),
    os.environ["JIT_TOKEN_FILE"],
    ca=os.environ.get("JIT_CA_FILE"),
    # Idle connections of the account before are replaced at once, busy ones when they come back.
    on_change=lambda credential: pool.drain(),
)


def conninfo():
    """Where a new connection goes: asked each time, so that it is always the current account's."""
    now = watch.credential
    return psycopg.conninfo.make_conninfo(
        host=now.host, port=now.port, dbname=now.database, user=now.username, password=now.password
    )


def is_current(connection):
    """Nobody gets a connection of an account whose lease is about to end."""
    if connection.info.user != watch.credential.username:
        raise psycopg.OperationalError("a connection of the account before")


pool = psycopg_pool.ConnectionPool(
    conninfo,
    min_size=2,
    max_size=4,
    check=is_current,
    max_lifetime=watch.credential.ttl * 0.75,  # 45 minutes of an hour
    open=True,
)


def work():
    global ok, failed
    while not stop.is_set():
        try:
            with pool.connection() as connection:
                account, _ = connection.execute("SELECT current_user, count(*) FROM items").fetchone()
            with lock:
                ok += 1
                if account not in accounts:
                    accounts.add(account)
                    print(json.dumps({"account": account}), flush=True)
        except Exception:
            logging.exception("a query failed")
            with lock:
                failed += 1
        stop.wait(0.03)


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stop.set())
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
pool.close()
watch.close()
print(json.dumps({"queries": ok, "failed": failed, "accounts": len(accounts)}), flush=True)
