//! What the directory says of accounts.

use jit_plugin::ldap::{Condition, Entry, Query, Scope};
use jit_plugin::{AccountPage, AccountState, Error, Ldap};

use crate::config::{Flavour, TargetConfig};
use crate::failure::of_read;
use crate::flavour::entry_of;
use crate::look::read;

/// How many names a page of [`list`] has. Servers give 500 (OpenLDAP) or 1000 (Active Directory)
/// entries when nobody told them otherwise.
const PAGE: u32 = 500;

/// How many looks one page may take.
const LOOKS: usize = 100;

/// What the broker's names are made of, in order.
const ALPHABET: &[u8; 37] = b"-0123456789abcdefghijklmnopqrstuvwxyz";

/// Most bytes of a list of groups that is shown.
const SHOWN: usize = 900;

/// `ADS_UF_ACCOUNTDISABLE`
const DISABLED: u32 = 2;

/// Seconds from 1601 to 1970.
const FILE_TIME_EPOCH: u64 = 11_644_473_600;

pub(crate) fn inspect(ldap: &mut dyn Ldap, target: &TargetConfig, name: &str) -> Result<AccountState, Error> {
    let attributes: &[&str] = match target.flavour {
        Flavour::OpenLdap => &["pwdEndTime", "pwdAccountLockedTime", "memberOf"],
        Flavour::ActiveDirectory => &["userAccountControl", "accountExpires", "memberOf"],
    };
    let Some(entry) = the_entry(ldap, target, name, attributes)? else {
        return Err(Error::NotFound);
    };
    let (can_login, expires_at) = match target.flavour {
        Flavour::OpenLdap => {
            let expires_at = entry.value("pwdEndTime").and_then(generalized_time);
            // A locked account's end is in 1970.
            let is_over = expires_at.is_some_and(|seconds| seconds <= 1);
            (entry.value("pwdAccountLockedTime").is_none() && !is_over, expires_at)
        }
        Flavour::ActiveDirectory => {
            let control = entry.value("userAccountControl").and_then(|text| text.parse::<u32>().ok());
            let expires_at = entry.value("accountExpires").and_then(file_time);
            (control.is_some_and(|control| control & DISABLED == 0), expires_at)
        }
    };
    let mut properties = Vec::new();
    let groups = joined(entry.values("memberOf"));
    if !groups.is_empty() {
        properties.push(("member_of".to_owned(), groups));
    }
    Ok(AccountState { can_login, expires_at, properties })
}

/// The account's entry, if it is there.
fn the_entry(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    name: &str,
    attributes: &[&str],
) -> Result<Option<Entry>, Error> {
    read(ldap, &entry_of(target, name), attributes).map_err(of_read)
}

/// As many of them as fit.
fn joined(groups: &[String]) -> String {
    let mut text = String::new();
    for group in groups {
        if text.len() + group.len() + 2 > SHOWN {
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(group);
    }
    text
}

/// A directory has no order, and gives no more than its limit. So a beginning that has too many names
/// is looked at letter by letter; the cursor is the beginning that comes next. Names with other letters
/// than the broker uses are only seen where they fit on one page.
pub(crate) fn list(
    ldap: &mut dyn Ldap,
    target: &TargetConfig,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<AccountPage, Error> {
    let mut node = cursor.unwrap_or(prefix).to_owned();
    if !node.starts_with(prefix) {
        return Err(Error::Other("a cursor of another list".into()));
    }
    for _ in 0..LOOKS {
        if let Some(names) = beginning_with(ldap, target, &node)? {
            let next = successor(&node, prefix);
            match next {
                Some(next) if names.is_empty() => node = next,
                next => return Ok(AccountPage { names, next }),
            }
        } else {
            let itself = !node.is_empty() && the_entry(ldap, target, &node, &["1.1"])?.is_some();
            let first = format!("{node}{}", char::from(ALPHABET[0]));
            if itself {
                return Ok(AccountPage { names: vec![node], next: Some(first) });
            }
            node = first;
        }
    }
    Ok(AccountPage { names: Vec::new(), next: Some(node) })
}

/// The names that begin so, in order; none when there are too many.
fn beginning_with(ldap: &mut dyn Ldap, target: &TargetConfig, start: &str) -> Result<Option<Vec<String>>, Error> {
    let attribute = target.name_attribute();
    let condition =
        if start.is_empty() { Condition::Present(attribute) } else { Condition::StartsWith(attribute, start) };
    let base = jit_plugin::ldap::Name::of(&target.accounts_base);
    let found = ldap.search(&Query {
        base: &base,
        scope: Scope::One,
        filter: vec![condition],
        attributes: &[attribute],
        max_entries: PAGE,
    });
    let found = found.map_err(of_read)?;
    if found.truncated {
        return Ok(None);
    }
    // The directory compares without case, and an entry may have several names.
    let name_of = |entry: &Entry| entry.values(attribute).iter().find(|name| name.starts_with(start)).cloned();
    let mut names: Vec<String> = found.entries.iter().filter_map(name_of).collect();
    names.sort();
    names.dedup();
    Ok(Some(names))
}

/// The beginning that comes after this one and all below it.
fn successor(node: &str, root: &str) -> Option<String> {
    let mut node = node.to_owned();
    while node.len() > root.len() {
        let last = node.pop()?;
        let place = ALPHABET.iter().position(|&letter| char::from(letter) == last);
        if let Some(&next) = place.and_then(|place| ALPHABET.get(place + 1)) {
            node.push(char::from(next));
            return Some(node);
        }
    }
    None
}

/// `YYYYMMDDHHMMSSZ` (RFC 4517, 3.3.13) as seconds since the Unix epoch; with or without a fraction,
/// which is dropped.
pub(crate) fn generalized_time(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z')?;
    let digits = digits.split(['.', ',']).next().unwrap_or(digits);
    if digits.len() != 14 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Days since 1970-01-01, with the year beginning in March, so that the leap day is its last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Active Directory's FILETIME as seconds since the Unix epoch; none for never.
pub(crate) fn file_time(text: &str) -> Option<u64> {
    let ticks: u64 = text.parse().ok()?;
    if ticks == 0 || ticks >= i64::MAX as u64 {
        return None;
    }
    Some((ticks / 10_000_000).saturating_sub(FILE_TIME_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("19700101000000Z", Some(0)),
            ("20270115080000Z", Some(1_800_000_000)),
            ("20240229235959.5Z", Some(1_709_251_199)),
            ("00000101000000Z", None),
            ("000001010000Z", None),
            ("20271315080000Z", None),
            ("20270115080000", None),
            ("2027011508000äZ", None),
        ] {
            assert_eq!(generalized_time(text), seconds, "{text}");
        }
        assert_eq!(file_time("134444736000000000"), Some(1_800_000_000));
        for never in ["0", "9223372036854775807", "x"] {
            assert_eq!(file_time(never), None);
        }
    }

    #[test]
    fn beginnings_come_one_after_the_other_and_end() {
        for (node, next) in [
            ("v-", None),
            ("v--", Some("v-0")),
            ("v-9", Some("v-a")),
            ("v-az", Some("v-b")),
            ("v-z", None),
            ("v-zz", None),
        ] {
            assert_eq!(successor(node, "v-").as_deref(), next, "{node}");
        }
    }
}
