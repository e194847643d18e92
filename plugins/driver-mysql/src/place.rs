//! Where the accounts are: the server, or the group of servers that share their accounts.

use jit_plugin::{Error, Sql};

use crate::flavour::Server;
use crate::{failure, statements};

/// What says who the server is, the best first: what a group shares, then what is the server's own.
const IDENTITIES: [&str; 4] = ["group_replication_group_name", "wsrep_cluster_state_uuid", "server_uuid", "server_uid"];

/// A Galera status without a cluster.
const NO_CLUSTER: &str = "00000000-0000-0000-0000-000000000000";

/// The server's identity. Nothing where it has none to tell (MariaDB before 10.5.26): the host then goes
/// by the connection's host and port.
pub(crate) fn place(sql: &mut dyn Sql) -> Result<Vec<(String, String)>, Error> {
    let template = if Server::ask(sql)?.is_mariadb() { statements::PLACE_MARIADB } else { statements::PLACE };
    let rows = sql.query(None, &template.with([]), 2).map_err(failure::of_read)?.rows;
    let told = |wanted: &str| {
        rows.iter().find_map(|row| match &row[..] {
            [Some(name), Some(value)] if name.eq_ignore_ascii_case(wanted) => Some(value.clone()),
            _ => None,
        })
    };
    let identity =
        IDENTITIES.iter().find_map(|name| told(name).filter(|value| !value.is_empty() && value != NO_CLUSTER));
    Ok(identity.map(|identity| ("server".to_owned(), identity)).into_iter().collect())
}
