//! The host's log. Lines carry the plugin's name; the host escapes control characters and cuts a
//! flood. Never log a token or anything else that a caller would not want to find there.
//!
//! In native unit tests the lines go to standard error.

pub use crate::bindings::host::jit::plugin::log::Level;

/// The longest message in bytes; the rest is cut here, before the host would.
const MAX_MESSAGE: usize = 4096;

/// Writes one line with named values.
pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
    let message = cut(message, MAX_MESSAGE);
    #[cfg(target_arch = "wasm32")]
    {
        let fields: Vec<(String, String)> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        crate::bindings::host::jit::plugin::log::write(level, message, &fields);
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        eprintln!("{level:?} {message:?} {fields:?}");
    }
}

/// Something is broken and somebody must look.
pub fn error(message: &str, fields: &[(&str, &str)]) {
    write(Level::Error, message, fields);
}

/// Something works and should not stay so.
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    write(Level::Warn, message, fields);
}

/// Something an operator may want to know.
pub fn info(message: &str, fields: &[(&str, &str)]) {
    write(Level::Info, message, fields);
}

/// Something only the plugin's author wants to know.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    write(Level::Debug, message, fields);
}

/// The first `max` bytes, at a character's boundary.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(super::cut("aé", 2), "a");
        assert_eq!(super::cut("aé", 3), "aé");
        assert_eq!(super::cut("aé", 300), "aé");
    }
}
