#!/bin/sh
# The agent around a script: it gets an account, starts the script with psql's own variables in its
# environment (PGUSER, PGPASSWORD, PGHOST, …), starts it again with each new account, and gives the
# last one back when the script ends.
exec "${JIT_AGENT:-jit-agent}" exec --target inventory_db --env pgenv --on-rotate restart -- \
    sh "$(dirname "$0")/report.sh"
