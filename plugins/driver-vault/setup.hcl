# What the broker's token needs in Vault or OpenBao, and no more. Here `database` is the mount and
# `app_read_only` the role; repeat the three lines that name the role for each one.
#
#   vault policy write jit-broker setup.hcl

# Gets credentials.
path "database/creds/app_read_only" { capabilities = ["read"] }

# Sees that the role exists, when the broker loads its configuration.
path "database/roles/app_read_only" { capabilities = ["read"] }

# With `exclusive = true` only: finds credentials whose answer was lost on the way. Vault guards the
# list of leases with `sudo`; on this path it allows nothing else. Without `roles` in the target's
# config the same is needed for "sys/leases/lookup/database/creds/".
path "sys/leases/lookup/database/creds/app_read_only/" { capabilities = ["list", "sudo"] }

# Moves the end of a lease, ends it, looks at it. Vault takes any lease's id here: ids are random,
# and the broker knows its own.
path "sys/leases/renew" { capabilities = ["update"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }

# Keeps its own token alive: every lease ends with the token that made it.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }

# Checks this policy against the configuration, and says which line is missing.
path "sys/capabilities-self" { capabilities = ["update"] }
