//! `rotating` of `[targets.NAME.roles.ROLE]`: one account that stands, whose password changes.

use std::collections::BTreeMap;

use jit_core::name::RoleName;
use jit_core::rotation::Schedule;
use jit_core::ttl::Ttl;

use super::reading::join;
use super::section::Section;
use super::target::Target;

/// A rotating role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotating {
    /// The account, by its name in the backend: 1 to 256 bytes.
    pub account: String,
    /// When its password changes; by default each hour, with an overlap of ten minutes.
    pub schedule: Schedule,
}

/// In seconds, where the configuration does not say.
const PERIOD: u32 = 3_600;
const OVERLAP: u32 = 600;
/// The longest period: a year.
const LONGEST: u32 = 366 * 86_400;

/// The rotating ones of a target's roles.
pub(super) fn of_roles(section: &Section<'_>) -> BTreeMap<RoleName, Rotating> {
    let mut found = BTreeMap::new();
    for (name, value) in section.all_entries("roles") {
        let Some((key, value)) = value.get_ref().as_table().and_then(|role| role.get_key_value("rotating")) else {
            continue;
        };
        let path = join(&join(&join(&section.path, "roles"), name.get_ref()), "rotating");
        let Some(table) = value.get_ref().as_table() else {
            let message = format!("`rotating` must be a table, not {}", super::field::kind(value.get_ref()));
            section.reading.error(value.span(), message, Some(EXAMPLE.to_owned()));
            continue;
        };
        let rotating = section.below(path, key.span(), table, rotating);
        // A wrong name of a role is told where the roles are read.
        if let (Some(rotating), Ok(role)) = (rotating, RoleName::new(name.get_ref().as_ref())) {
            found.insert(role, rotating);
        }
    }
    found
}

/// Without a key that seals them, passwords of rotating accounts could not outlive the process.
pub(super) fn refuse_without_key(root: &Section<'_>, targets: &BTreeMap<String, Target>) {
    for (name, target) in targets.iter().filter(|(_, target)| !target.rotating.is_empty()) {
        let span = root.names("targets").into_iter().find(|(other, _)| other == name).map(|(_, span)| span);
        let roles: Vec<&str> = target.rotating.keys().map(RoleName::as_str).collect();
        let message = format!(
            "target `{name}` has a rotating account ({}), whose password is kept sealed in the store, and there is no sealing key",
            roles.join(", ")
        );
        let help = "make one with `jit-broker store key data/sealing.key` and write:\n\
                    [store]\nsealing_key = { file = \"data/sealing.key\" }";
        root.reading.error(span.unwrap_or(0..0), message, Some(help.to_owned()));
    }
}

const EXAMPLE: &str = "write, for example: rotating = { account = \"app_user\", period = \"1h\", overlap = \"10m\" }";

fn rotating(section: &Section<'_>) -> Option<Rotating> {
    section.demand("account", "rotating = { account = \"app_user\" }");
    let account = section.parsed("account", "the name of the account in the backend", |text| {
        let plain = text.trim() == text && !text.chars().any(char::is_control);
        if plain && (1..=256).contains(&text.len()) { Ok(text.to_owned()) } else { Err("1 to 256 plain bytes") }
    });
    let seconds = |seconds: u32| Ttl::from_seconds(i64::from(seconds)).unwrap_or(Ttl::MAX);
    let period = section.ttl("period").unwrap_or_else(|| seconds(PERIOD));
    let overlap = section.ttl("overlap").unwrap_or_else(|| seconds(OVERLAP));
    if period > seconds(LONGEST) {
        section.error("period", format!("`period` must be at most {}, not {period}", seconds(LONGEST)), None);
        return None;
    }
    match Schedule::new(period, overlap) {
        Ok(schedule) => Some(Rotating { account: account?, schedule }),
        Err(_) => {
            let key = if section.entry("overlap").is_some() { "overlap" } else { "period" };
            let message =
                format!("the old password works for `overlap` ({overlap}): that must be less than `period` ({period})");
            section.error(key, message, Some(EXAMPLE.to_owned()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn of(rotating: &str) -> Result<Config, super::super::ConfigErrors> {
        let text = super::super::EXAMPLE.replace(
            "grants = [\"app_read_only\"]\n",
            &format!("grants = [\"app_read_only\"]\nrotating = {rotating}\n"),
        );
        let text = text.replace("# sealing_key", "sealing_key");
        Config::parse(&text, "broker.toml")
    }

    #[test]
    fn has_defaults_and_passes_the_whole_table_on() {
        let config = of("{ account = \"app_user\" }").unwrap();
        let target = config.targets.values().next().unwrap();
        let rotating = target.rotating.values().next().unwrap();
        assert_eq!(rotating.account, "app_user");
        assert_eq!(rotating.schedule.period().to_string(), "1h");
        assert_eq!(rotating.schedule.overlap().to_string(), "10m");
        assert_eq!(target.roles.values().next().unwrap()["rotating"]["account"], "app_user");
    }

    #[test]
    fn each_mistake_is_told() {
        for (rotating, says) in [
            ("true", "`rotating` must be a table, not true or false"),
            ("{}", "`account` is missing"),
            ("{ account = \"\" }", "`account` must be the name of the account"),
            ("{ account = \"a\", perod = \"1h\" }", "unknown key `perod`"),
            ("{ account = \"a\", period = \"10m\" }", "that must be less than `period`"),
            ("{ account = \"a\", period = \"5s\", overlap = \"5s\" }", "(5s): that must be less than `period` (5s)"),
            ("{ account = \"a\", overlap = \"0s\" }", "`overlap` must be a duration"),
            ("{ account = \"a\", period = \"400d\" }", "`period` must be at most"),
        ] {
            let errors = of(rotating).unwrap_err();
            let told: Vec<String> = errors.problems().iter().map(super::super::Problem::plain).collect();
            assert!(told.iter().any(|told| told.contains(says)), "{rotating}: {told:?}");
        }
    }

    #[test]
    fn needs_a_sealing_key() {
        let text = super::super::EXAMPLE.replace(
            "grants = [\"app_read_only\"]\n",
            "grants = [\"app_read_only\"]\nrotating = { account = \"app_user\" }\n",
        );
        let errors = Config::parse(&text, "broker.toml").unwrap_err();
        let told = errors.problems()[0].plain();
        assert!(told.contains("jit-broker store key"), "{told}");
    }
}
