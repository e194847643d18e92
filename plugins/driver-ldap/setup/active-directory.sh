#!/bin/sh
# Active Directory for jit-broker: an OU for its accounts, and an account for the broker that may do
# what is needed and nothing else. For Samba's domain controllers, run there as root; beside each step
# stands what does the same on Windows. The test suite runs this very file.
#
#   DOMAIN     the domain's distinguished name                DC=corp,DC=test
#   ROLES      the groups that the broker may grant           app_read_only app_read_write
#   PASSWORD   of the broker's account; asked for when unset
#   SAMBA_TOOL options for samba-tool, for example -H ldaps://dc1.corp.test -U Administrator
set -eu
: "${DOMAIN:?}" "${ROLES:?}"

# By default every account of a domain may make ten computer accounts. One that a leased account makes
# outlives its lease, so nobody may. (Whoever joins machines gets a right on their OU for it.)
# Set-ADDomain corp.test -Replace @{"ms-DS-MachineAccountQuota"="0"}
ldbmodify ${SAMBA_TOOL-} <<END
dn: $DOMAIN
changetype: modify
replace: ms-DS-MachineAccountQuota
ms-DS-MachineAccountQuota: 0
END

# New-ADOrganizationalUnit JIT; New-ADOrganizationalUnit Services
samba-tool ou add "OU=JIT" ${SAMBA_TOOL-}
samba-tool ou add "OU=Services" ${SAMBA_TOOL-}

# A password policy for the broker's accounts, which it joins as members of this group: wrong passwords
# lock nobody. The passwords are random, and a lockout would let whoever knows a name end its lease.
# New-ADGroup jit-accounts -GroupScope Global -Path "OU=Services,$DOMAIN"
# New-ADFineGrainedPasswordPolicy jit-accounts -Precedence 1 -LockoutThreshold 0
# Add-ADFineGrainedPasswordPolicySubject jit-accounts -Subjects jit-accounts
samba-tool group add jit-accounts --groupou=OU=Services ${SAMBA_TOOL-}
samba-tool domain passwordsettings pso create jit-accounts 1 --account-lockout-threshold=0 ${SAMBA_TOOL-}
samba-tool domain passwordsettings pso apply jit-accounts jit-accounts ${SAMBA_TOOL-}

# New-ADUser jit-broker -Path "OU=Services,$DOMAIN" -PasswordNeverExpires 1 -Enabled 1
samba-tool user create jit-broker ${PASSWORD:+"$PASSWORD"} --userou=OU=Services ${SAMBA_TOOL-}
samba-tool user setexpiry jit-broker --noexpiry ${SAMBA_TOOL-}
sid=$(samba-tool user show jit-broker --attributes=objectSid ${SAMBA_TOOL-} | sed -n 's/^objectSid: //p')
test -n "$sid"

# Rights are given with samba-tool dsacl; schema classes and attributes go by their GUIDs (Microsoft,
# "Active Directory Schema").
allow() {
    samba-tool dsacl set --action=allow --objectdn="$1" --sddl="$2" ${SAMBA_TOOL-} >/dev/null
}
user=bf967aba-0de6-11d0-a285-00aa003049e2
member=bf9679c0-0de6-11d0-a285-00aa003049e2
account_control=bf967a68-0de6-11d0-a285-00aa003049e2
account_expires=bf967915-0de6-11d0-a285-00aa003049e2
reset_password=00299570-246d-11d0-a768-00aa006e0529

# In OU=JIT it makes and deletes users, and no other class of object.
# dsacls "OU=JIT,$DOMAIN" /G "CORP\jit-broker:CCDC;user"
allow "OU=JIT,$DOMAIN" "(OA;;CCDC;$user;;$sid)"
# It reads their attributes, enables and disables them, moves their expiry, and sets their passwords.
# dsacls "OU=JIT,$DOMAIN" /I:S /G "CORP\jit-broker:RP;;user" "CORP\jit-broker:CA;Reset Password;user" \
#     "CORP\jit-broker:WP;userAccountControl;user" "CORP\jit-broker:WP;accountExpires;user"
allow "OU=JIT,$DOMAIN" "(OA;CIIO;RPLCLORC;;$user;$sid)"
allow "OU=JIT,$DOMAIN" "(OA;CIIO;WP;$account_control;$user;$sid)"
allow "OU=JIT,$DOMAIN" "(OA;CIIO;WP;$account_expires;$user;$sid)"
allow "OU=JIT,$DOMAIN" "(OA;CIIO;CR;$reset_password;$user;$sid)"
# In the groups of the roles and in the one of the password policy it writes the members; in no other.
# dsacls "CN=app_read_only,OU=Groups,$DOMAIN" /G "CORP\jit-broker:WP;member"
for role in $ROLES jit-accounts; do
    group=$(samba-tool group show "$role" --attributes=dn ${SAMBA_TOOL-} | sed -n 's/^dn: //p')
    test -n "$group"
    allow "$group" "(OA;;WP;$member;;$sid)"
done
