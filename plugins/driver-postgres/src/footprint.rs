//! What hangs on an account.

use jit_plugin::{Error, Param, Sql};

use crate::account::is_true;
use crate::{failure, statements};

/// More databases than this are looked at by the next call.
const MAX_DATABASES: u32 = 100;

/// How many databases, and things in each, an error names.
const NAMED_DATABASES: usize = 10;
const NAMED_THINGS: u32 = 20;

/// What hangs on a role.
pub(crate) struct Footprint {
    pub(crate) version: u32,
    pub(crate) sessions: u64,
    /// Its prepared transactions; not counted while it has sessions.
    pub(crate) prepared: u64,
    pub(crate) places: Vec<Place>,
}

/// The things in one database, or those that belong to none.
pub(crate) struct Place {
    /// None for the connection's own, and for what belongs to no database.
    pub(crate) database: Option<String>,
    pub(crate) shown: String,
    pub(crate) things: u64,
    pub(crate) owned: u64,
}

impl Footprint {
    /// None when the role is not there.
    pub(crate) fn of(sql: &mut dyn Sql, name: &str) -> Result<Option<Self>, Error> {
        let statement = statements::FOOTPRINT.with([Param::Literal(name)]);
        let rows = sql.query(None, &statement, MAX_DATABASES).map_err(failure::of_read)?.rows;
        let mut footprint: Option<Self> = None;
        for row in rows {
            let [version, sessions, prepared, database, is_own, things, owned] = &row[..] else {
                return Err(Error::Other("the server returned unexpected columns".into()));
            };
            let (Some(version), Some(sessions)) = (number(version), number(sessions)) else {
                return Err(Error::Other("the server does not count the account's sessions".into()));
            };
            let prepared = number(prepared).unwrap_or_default();
            let footprint = footprint.get_or_insert_with(|| Self { version, sessions, prepared, places: Vec::new() });
            let things = number(things).unwrap_or_default();
            if things == 0 {
                continue;
            }
            let is_own = is_own.as_deref().is_some_and(is_true);
            footprint.places.push(Place {
                database: database.clone().filter(|_| !is_own),
                shown: database.clone().unwrap_or_else(|| "no database".into()),
                things,
                owned: number(owned).unwrap_or_default(),
            });
        }
        Ok(footprint)
    }

    /// What the account cannot go without, by name where the database tells.
    pub(crate) fn dependents(&self, sql: &mut dyn Sql, name: &str) -> Error {
        dependents(sql, name, &self.places)
    }
}

/// What the account cannot go without in these places, by name where the database tells.
pub(crate) fn dependents(sql: &mut dyn Sql, name: &str, places: &[Place]) -> Error {
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

impl Place {
    fn in_words(&self) -> String {
        let Self { things, owned, shown, .. } = self;
        format!("{shown}: {things} in all, {owned} owned")
    }
}

/// A number as text.
fn number<T: std::str::FromStr>(text: &Option<String>) -> Option<T> {
    text.as_deref().and_then(|digits| digits.parse().ok())
}
