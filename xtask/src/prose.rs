//! The documentation's own rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The longest line of prose, in characters.
pub const MAX_LINE: usize = 120;
/// Folders with pages, beside the root.
const FOLDERS: [&str; 6] = ["docs", "deploy", "sdk", "fuzz", "plugins", ".github"];
/// Folders that other programs fill.
const NOT_OURS: [&str; 3] = ["node_modules", "target", "__pycache__"];
/// Pages that are not prose: `cargo xtask bench` prints the first, and the second has one line for each change.
const NOT_PROSE: [&str; 2] = ["measurements.md", "CHANGELOG.md"];
/// How deep folders are searched.
const MAX_DEPTH: usize = 6;

/// A line that is too long.
#[derive(Debug, PartialEq, Eq)]
pub struct LongLine {
    /// Counted from 1.
    pub number: usize,
    /// In characters.
    pub length: usize,
}

/// The pages of prose, sorted: those whose lines are measured.
///
/// # Errors
/// When a folder cannot be read.
pub fn pages(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = all_pages(root)?;
    found.retain(|page| !NOT_PROSE.iter().any(|name| page.ends_with(name)));
    Ok(found)
}

/// All Markdown pages of the tree, sorted.
///
/// # Errors
/// When a folder cannot be read.
pub fn all_pages(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(root, 0, &mut found)?;
    for folder in FOLDERS.iter().map(|folder| root.join(folder)).filter(|folder| folder.is_dir()) {
        collect(&folder, MAX_DEPTH, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if depth > 0 && !NOT_OURS.iter().any(|theirs| name == *theirs) {
                collect(&path, depth - 1, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The lines of prose that are longer than [`MAX_LINE`]. Rows of tables, code and lines that are one link cannot
/// be broken.
#[must_use]
pub fn long_lines(text: &str) -> Vec<LongLine> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if start.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let length = line.chars().count();
        let cannot_be_broken = in_code || start.starts_with('|') || !start.contains(' ');
        if length > MAX_LINE && !cannot_be_broken {
            found.push(LongLine { number: index + 1, length });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_measured_and_what_cannot_be_broken_is_not() {
        let long = "word ".repeat(30);
        let text = format!("short\n{long}\n| {long} |\n```\n{long}\n```\n{}\n- {long}\n", "x".repeat(150));
        assert_eq!(long_lines(&text), [LongLine { number: 2, length: 150 }, LongLine { number: 8, length: 152 }]);
    }

    #[test]
    fn a_line_of_letters_outside_ascii_is_measured_in_characters() {
        assert!(long_lines(&"é é ".repeat(30)).is_empty());
    }
}
