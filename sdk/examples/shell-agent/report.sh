#!/bin/sh
# Queries all the time. It knows nothing of accounts: psql finds its own variables in the environment.
# On SIGTERM it finishes the query that it is at, as every script should.
stop=
trap 'stop=yes' TERM INT

# What it has counted survives a restart.
counts=${COUNTS:-counts.txt}
ok=0 failed=0 accounts=0 seen=
if [ -f "$counts" ]; then
    read -r ok failed accounts <"$counts"
fi

while [ -z "$stop" ]; do
    # A signal reaches the whole process group: what must not be cut off ignores it.
    if account=$(trap '' TERM INT; "${PSQL:-psql}" -XAtq -c 'SELECT current_user FROM items LIMIT 1'); then
        ok=$((ok + 1))
        if [ "$account" != "$seen" ]; then
            seen=$account accounts=$((accounts + 1))
            printf '{"account": "%s"}\n' "$account"
        fi
    else
        failed=$((failed + 1))
    fi
    sleep 0.03
done

echo "$ok $failed $accounts" >"$counts"
printf '{"queries": %d, "failed": %d, "accounts": %d}\n' "$ok" "$failed" "$accounts"
