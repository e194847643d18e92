//! `require_signature` and `trusted_keys` of `[plugins]`: who must vouch for what is loaded. They
//! stand beside the tables of the plugins, so no plugin has their names.

use std::path::PathBuf;

use jit_files::read_capped;
use jit_tlog::checkpoint::VerifierKey;
use jit_tlog::signature::PluginKey;
use toml::Spanned;
use toml::de::DeValue;

use super::field::kind;
use super::reading::join;
use super::section::Section;

/// The keys of `[plugins]` that are no plugins.
pub(super) const RESERVED: &[&str] = &["require_signature", "trusted_keys"];

/// The most keys that are trusted at once.
const MAX_KEYS: usize = 32;
/// The largest file with a key, in bytes.
const MAX_KEY_FILE: u64 = 1_024;

/// Who must vouch for plugins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signing {
    /// Whether somebody must; `false` by default.
    pub required: bool,
    /// Whose signature is enough: one of these.
    pub trusted: Vec<TrustedKey>,
}

/// The public half of a key that signs plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedKey {
    /// Itself.
    Key(VerifierKey),
    /// In a file of one line, read whenever plugins are loaded.
    File(PathBuf),
}

impl Signing {
    /// The keys of which one must vouch for each plugin; none where nobody has to. Reads files.
    ///
    /// # Errors
    /// With the key's place in the list and what is wrong, when one cannot be had.
    pub fn keys(&self) -> Result<Option<Vec<VerifierKey>>, (usize, String)> {
        if self.required { self.trusted_keys().map(Some) } else { Ok(None) }
    }

    /// The trusted keys, whether anything has to be signed or not. Reads files.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn trusted_keys(&self) -> Result<Vec<VerifierKey>, (usize, String)> {
        let each = |(index, key): (usize, &TrustedKey)| match key {
            TrustedKey::Key(key) => Ok(key.clone()),
            TrustedKey::File(path) => read_key(path).map_err(|error| (index, format!("{}: {error}", path.display()))),
        };
        self.trusted.iter().enumerate().map(each).collect()
    }

    /// The files that hold keys.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.trusted.iter().filter_map(|key| if let TrustedKey::File(path) = key { Some(path) } else { None })
    }
}

fn read_key(path: &std::path::Path) -> Result<VerifierKey, String> {
    let bytes = read_capped(path, MAX_KEY_FILE).map_err(|error| format!("cannot be read: {error}"))?;
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| "is not a key: it is too long, or not text".to_owned())?;
    if PluginKey::looks_like_one(&text) {
        return Err("is the signing key itself: give the line that `jit-broker plugin key` prints".to_owned());
    }
    text.trim().parse().map_err(|error: jit_tlog::checkpoint::NoteError| error.to_string())
}

/// Reads them from the table of the plugins.
pub(super) fn signing(section: &Section<'_>) -> Signing {
    for &key in RESERVED {
        if let Some((name, _)) = section.entry(key).filter(|(_, value)| value.get_ref().is_table()) {
            let message = format!("a plugin may not be called `{key}`: that is a key of [plugins] itself");
            section.reading.error(name.span(), message, Some("give the plugin another name".to_owned()));
            return Signing::default();
        }
    }
    let required = section.flag("require_signature").unwrap_or(false);
    let trusted = trusted_keys(section);
    let told = section.entry("trusted_keys").is_some();
    if required && trusted.as_ref().is_some_and(Vec::is_empty) {
        let help = "write trusted_keys = [\"name+4f2a91c0+AXx…\"] with what `jit-broker plugin key FILE` prints";
        let message = "`require_signature` needs `trusted_keys`: without one nothing could be loaded";
        section.error("require_signature", message, Some(help.to_owned()));
    }
    if !required && told && trusted.is_some() {
        let at = section.span_of("trusted_keys");
        section.reading.warn(at, "`trusted_keys` without `require_signature = true` has no effect", None);
    }
    Signing { required, trusted: trusted.unwrap_or_default() }
}

fn trusted_keys(section: &Section<'_>) -> Option<Vec<TrustedKey>> {
    let Some((_, value)) = section.entry("trusted_keys") else {
        return Some(Vec::new());
    };
    let expects = "a list such as [\"name+4f2a91c0+AXx…\"] or [{ file = \"keys/team.pub\" }]";
    let Some(items) = value.get_ref().as_array() else {
        section.reading.mask_all(value);
        let found = kind(value.get_ref());
        section.error("trusted_keys", format!("`trusted_keys` must be {expects}, not {found}"), None);
        return None;
    };
    if items.len() > MAX_KEYS {
        section.error("trusted_keys", format!("`trusted_keys` must have at most {MAX_KEYS}"), None);
        return None;
    }
    let mut keys = Vec::new();
    let mut right = true;
    for (index, item) in items.iter().enumerate() {
        match trusted_key(section, index, item) {
            Some(key) if keys.contains(&key) => {
                section.reading.error(item.span(), "this key is listed twice", None);
                right = false;
            }
            Some(key) => keys.push(key),
            None => right = false,
        }
    }
    right.then_some(keys)
}

fn trusted_key<'a>(section: &Section<'a>, index: usize, item: &'a Spanned<DeValue<'a>>) -> Option<TrustedKey> {
    match item.get_ref() {
        DeValue::String(text) => match text.parse() {
            Ok(key) => return Some(TrustedKey::Key(key)),
            Err(error) => {
                // Whatever it is, it may be the wrong half.
                section.reading.mask(item.span());
                if PluginKey::looks_like_one(text) {
                    let message = "this is a signing key, and no longer a secret: make another with `jit-broker plugin \
                                   key`, and give the line that it prints";
                    section.reading.error(item.span(), message, None);
                } else {
                    let help = "give the line that `jit-broker plugin key FILE` prints";
                    section.reading.error(
                        item.span(),
                        format!("each of `trusted_keys`: {error}"),
                        Some(help.to_owned()),
                    );
                }
            }
        },
        DeValue::Table(table) => {
            let path = format!("{}[{index}]", join(&section.path, "trusted_keys"));
            return section.below(path, item.span(), table, |table| {
                table.demand("file", "file = \"keys/team.pub\"");
                table.path("file").map(TrustedKey::File)
            });
        }
        other => {
            section.reading.mask_all(item);
            let message =
                format!("each of `trusted_keys` must be a key in quotes or {{ file = \"…\" }}, not {}", kind(other));
            section.reading.error(item.span(), message, None);
        }
    }
    None
}
