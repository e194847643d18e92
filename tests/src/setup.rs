//! The set-up that a driver's page shows: the same text is run here.

use std::path::Path;

/// A file of a driver's, such as `setup.sql`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn file(driver: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(driver).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text with these names in place of the documentation's, as whole words.
#[must_use]
pub fn with_names(text: &str, names: &[(&str, &str)]) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        } else {
            let found = names.iter().find(|(name, _)| *name == &rest[..word]);
            out.push_str(found.map_or(&rest[..word], |(_, other)| other));
            rest = &rest[word..];
        }
    }
    out
}

/// The statements of an SQL text, without its comments.
#[must_use]
pub fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let statements = code.join("\n");
    statements.split(';').map(|statement| statement.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_whole_words() {
        let text = "GRANT a TO a_b, b; -- \"a\"";
        assert_eq!(with_names(text, &[("a", "x"), ("b", "y")]), "GRANT x TO a_b, y; -- \"x\"");
    }

    #[test]
    fn statements_have_no_comments() {
        assert_eq!(statements("-- one;\nA; -- two\nB\nC;\n"), ["A", "B\nC"]);
    }

    /// What a reader copies from a page is what the tests run.
    #[test]
    fn each_drivers_page_shows_its_set_up() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut seen = 0;
        for folder in std::fs::read_dir(root.join("plugins")).unwrap().flatten() {
            let name = folder.file_name().to_string_lossy().into_owned();
            let Some(driver) = name.strip_prefix("driver-") else { continue };
            let page = std::fs::read_to_string(root.join(format!("docs/drivers/{driver}.md"))).unwrap();
            let places = [folder.path(), folder.path().join("setup")];
            let files = places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
            for file in files.map(|file| file.path()) {
                let is_setup = file.is_file()
                    && (file.parent().is_some_and(|parent| parent.ends_with("setup"))
                        || file.file_stem().is_some_and(|stem| stem == "setup"));
                if is_setup {
                    let text = std::fs::read_to_string(&file).unwrap();
                    assert!(page.contains(text.trim()), "docs/drivers/{driver}.md does not show {}", file.display());
                    seen += 1;
                }
            }
        }
        assert!(seen >= 5, "only {seen} files");
    }
}
