//! Removing an account, so that each step can be the last and the next call goes on:
//!
//! 1. it cannot log in any more;
//! 2. its sessions are ended, before anything is reassigned: they could make new things;
//! 3. what it owns goes to the owner that the target names, in every database where it owns
//!    something, and its privileges go;
//! 4. the role is dropped.
//!
//! An account that owns nothing and has no session takes three round trips.

use jit_plugin::{Account, Error, Param, Sql, SqlError, log};

use crate::account::is_true;
use crate::config::TargetConfig;
use crate::failure::{self, DEPENDENT_OBJECTS, UNDEFINED_OBJECT};
use crate::statements;

/// How often new dependents may turn up before the host is told to come back.
const ATTEMPTS: usize = 3;

/// How long the server waits for the end of one session, in milliseconds.
const SESSION_WAIT_MS: i64 = 1000;

/// More databases than this are looked at by the next call.
const MAX_DATABASES: u32 = 100;

/// How many databases, and things in each, an error names.
const NAMED_DATABASES: usize = 10;
const NAMED_THINGS: u32 = 20;

/// The first version in which a creator does not have the privileges of what it created.
const CREATOR_ONLY_ADMINISTERS: u32 = 160_000;

pub(crate) fn revoke(sql: &mut dyn Sql, target: &TargetConfig, account: &Account) -> Result<(), Error> {
    let name = account.name.as_str();
    let disable = statements::DISABLE.with([Param::Ident(name)]);
    match sql.execute(None, &[disable]) {
        Ok(()) => {}
        Err(error) if error.code() == Some(UNDEFINED_OBJECT) => return Ok(()),
        Err(error) => return Err(failure::of_change(error)),
    }
    for _ in 0..ATTEMPTS {
        let Some(mut footprint) = Footprint::of(sql, name)? else {
            return Ok(());
        };
        let has_sessions = target.terminate_sessions && footprint.sessions > 0;
        if has_sessions || !footprint.places.is_empty() {
            join(sql, name, footprint.version)?;
        }
        if has_sessions {
            // They may have made something until the last moment.
            match end_sessions(sql, name)? {
                Some(after) => footprint = after,
                None => return Ok(()),
            }
        }
        for place in &footprint.places {
            clear(sql, target, name, place)?;
        }
        match sql.execute(None, &[statements::DROP.with([Param::Ident(name)])]) {
            Ok(()) => return Ok(()),
            Err(error) => match error.code() {
                Some(UNDEFINED_OBJECT) => return Ok(()),
                Some(DEPENDENT_OBJECTS) => continue,
                _ => return Err(failure::of_change(error)),
            },
        }
    }
    let left = Footprint::of(sql, name)?.map(|footprint| footprint.places);
    Err(dependents(sql, name, &left.unwrap_or_default()))
}

/// What the account cannot go without, by name where the database tells.
fn dependents(sql: &mut dyn Sql, name: &str, places: &[Place]) -> Error {
    let mut left = Vec::new();
    for place in places.iter().take(NAMED_DATABASES) {
        let statement = statements::DEPENDENTS.with([Param::Literal(name)]);
        let things = sql.query(place.database.as_deref(), &statement, NAMED_THINGS);
        let things = things.map(|answer| answer.rows).unwrap_or_default();
        let things = things.into_iter().filter_map(|row| row.into_iter().next().flatten());
        left.extend(things.map(|thing| format!("{}: {thing}", place.shown)));
        left.push(place.in_words());
    }
    Error::Dependents(left)
}

/// What hangs on a role.
struct Footprint {
    version: u32,
    sessions: u64,
    places: Vec<Place>,
}

/// The things in one database, or those that belong to none.
struct Place {
    /// None for the connection's own, and for what belongs to no database.
    database: Option<String>,
    shown: String,
    things: u64,
    owned: u64,
}

impl Footprint {
    /// None when the role is not there.
    fn of(sql: &mut dyn Sql, name: &str) -> Result<Option<Self>, Error> {
        let statement = statements::FOOTPRINT.with([Param::Literal(name)]);
        let rows = sql.query(None, &statement, MAX_DATABASES).map_err(failure::of_read)?.rows;
        let mut footprint: Option<Self> = None;
        for row in rows {
            let [version, sessions, database, is_own, things, owned] = &row[..] else {
                return Err(Error::Other("the server gave other columns".into()));
            };
            let footprint = footprint.get_or_insert_with(|| Self {
                version: number(version),
                sessions: number(sessions),
                places: Vec::new(),
            });
            let things = number(things);
            if things == 0 {
                continue;
            }
            let is_own = is_own.as_deref().is_some_and(is_true);
            footprint.places.push(Place {
                database: database.clone().filter(|_| !is_own),
                shown: database.clone().unwrap_or_else(|| "no database".into()),
                things,
                owned: number(owned),
            });
        }
        Ok(footprint)
    }
}

impl Place {
    fn in_words(&self) -> String {
        let Self { things, owned, shown, .. } = self;
        format!("{shown}: {things} in all, {owned} owned")
    }
}

/// A number as text; what is none counts as zero, and the next step of the server's says no.
fn number<T: std::str::FromStr + Default>(text: &Option<String>) -> T {
    text.as_deref().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Gives the broker's role the privileges of the account. The membership goes with the account.
fn join(sql: &mut dyn Sql, name: &str, version: u32) -> Result<(), Error> {
    let join = if version >= CREATOR_ONLY_ADMINISTERS { statements::JOIN_INHERITING } else { statements::JOIN };
    sql.execute(None, &[join.with([Param::Ident(name)])]).map_err(failure::of_change)
}

/// Gives what hangs on the role once it has no session; none when it is not there.
fn end_sessions(sql: &mut dyn Sql, name: &str) -> Result<Option<Footprint>, Error> {
    for _ in 0..ATTEMPTS {
        let signal = statements::SIGNAL_SESSIONS.with([Param::Literal(name)]);
        sql.query(None, &signal, 1).map_err(failure::of_change)?;
        let wait = statements::AWAIT_SESSIONS.with([Param::Literal(name), Param::Number(SESSION_WAIT_MS)]);
        sql.query(None, &wait, 4).map_err(failure::of_change)?;
        // Only a new look tells: a session that ended between the list and the wait is told like
        // one that does not end.
        let after = Footprint::of(sql, name)?;
        if after.as_ref().is_none_or(|after| after.sessions == 0) {
            return Ok(after);
        }
    }
    let message = "sessions of a disabled account have not ended yet";
    log::warn(message, &[("account", name)]);
    Err(Error::retryable(message))
}

/// Hands over what the account owns in one database and takes its privileges there.
fn clear(sql: &mut dyn Sql, target: &TargetConfig, name: &str, place: &Place) -> Result<(), Error> {
    let drop_owned = statements::DROP_OWNED.with([Param::Ident(name)]);
    let batch = match &target.reassign_owned_to {
        Some(owner) => {
            let owner = [Param::Ident(name), Param::Ident(owner)];
            vec![statements::REASSIGN.with(owner), drop_owned]
        }
        // Without an owner to hand it to, DROP OWNED would delete the data.
        None if place.owned > 0 => {
            return Err(dependents(sql, name, std::slice::from_ref(place)));
        }
        None => vec![drop_owned],
    };
    let done = sql.execute(place.database.as_deref(), &batch);
    done.map_err(|error| match error {
        SqlError::Unavailable(reason) => Error::retryable(format!("database {}: {reason}", place.shown)),
        error => failure::of_change(error),
    })
}
