//! `cargo xtask book`: the pages of `docs/` as a book, made by mdBook.
//!
//! The pages are written to be read in the tree too, so they link to source files beside `docs/`. A book has only its
//! own pages: a copy of them is laid into `target/book/src`, in which such links lead to the project's repository.

pub mod links;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use jit_plugin_build::{Progress as _, process::Run};

use self::links::{Page, plain};
use crate::{
    plugins,
    steps::Steps,
    tools::{Tool, Tools},
};

/// Where the pages are.
const PAGES: &str = "docs";
/// The list of the pages, in the order of the book.
const SUMMARY: &str = "SUMMARY.md";
/// Where links lead that leave the book.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");
/// The first page of a folder, and what mdBook makes of it.
const README: &str = "README.md";
const INDEX: &str = "index.md";
/// What the book has besides pages.
const PICTURES: [&str; 2] = ["svg", "png"];
/// How long mdBook may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How deep folders of pages are.
const MAX_DEPTH: usize = 4;

/// Builds the book. Returns its first page.
///
/// # Errors
/// When mdBook cannot be had, fails, or warns of something; when a page is missing in `docs/SUMMARY.md`.
pub fn build(tools: &Tools, steps: &Steps) -> Result<PathBuf> {
    let root = plugins::root();
    let pages = root.join(PAGES);
    every_page_is_listed(&pages)?;
    let book = root.join("target/book");
    lay_out(&root, &pages, &book).context("the pages cannot be laid out")?;
    let mut mdbook = Command::new(tools.path(Tool::MdBook));
    mdbook.arg("build").arg(&book).env("MDBOOK_LOG", "warn").env("NO_COLOR", "1");
    let warnings = std::cell::RefCell::new(Vec::new());
    let keep = |line: &str| {
        if !line.trim().is_empty() {
            warnings.borrow_mut().push(line.to_owned());
        }
    };
    steps.step("mdbook build");
    Run::new("`mdbook build`", DEADLINE).on_line(&keep).output(&mut mdbook)?;
    let warnings = warnings.into_inner();
    if !warnings.is_empty() {
        bail!("mdBook warns:\n{}", warnings.join("\n"));
    }
    Ok(book.join("html/index.html"))
}

/// A page that the list does not name would be in the tree and not in the book.
fn every_page_is_listed(pages: &Path) -> Result<()> {
    let summary = pages.join(SUMMARY);
    let text = fs::read_to_string(&summary).with_context(|| format!("cannot read {}", summary.display()))?;
    let listed: BTreeSet<PathBuf> =
        Page::read(&text).links.iter().filter_map(|link| Some(pages.join(link.in_tree()?.0))).collect();
    let mut missing = Vec::new();
    for page in files(pages)? {
        let is_page = page.extension().is_some_and(|extension| extension == "md") && page != summary;
        if is_page && !listed.contains(&page) {
            missing.push(page.strip_prefix(pages).unwrap_or(&page).display().to_string());
        }
    }
    if !missing.is_empty() {
        bail!("{PAGES}/{SUMMARY} does not list {}", missing.join(", "));
    }
    Ok(())
}

/// Copies the pages, with links as the book needs them.
fn lay_out(root: &Path, pages: &Path, book: &Path) -> Result<()> {
    let source = book.join("src");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    fs::copy(pages.join("book.toml"), book.join("book.toml"))?;
    for file in files(pages)? {
        let place = source.join(file.strip_prefix(pages)?);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if file == pages.join(SUMMARY) {
            fs::copy(&file, &place)?;
        } else if extension == "md" {
            let text = fs::read_to_string(&file)?;
            fs::write(&place, with_links_of_the_book(&text, file.parent().unwrap_or(pages), root, pages))?;
        } else if PICTURES.contains(&extension) {
            fs::copy(&file, &place)?;
        }
    }
    Ok(())
}

/// A page's text, in which links to files outside of the book lead to the repository, and links to a folder's
/// README to what mdBook makes of it, which is the folder's index.
fn with_links_of_the_book(text: &str, folder: &Path, root: &Path, pages: &Path) -> String {
    let mut changed = text.to_owned();
    // From the end, so that the places of those before stay right.
    for link in Page::read(text).links.iter().rev() {
        let Some((to, _)) = link.in_tree().filter(|(to, _)| !to.is_empty()) else { continue };
        let target = plain(&folder.join(to));
        let new = if target.starts_with(pages) {
            let Some(folder) = to.strip_suffix(README) else { continue };
            format!("{folder}{INDEX}")
        } else {
            let Ok(target) = target.strip_prefix(root) else { continue };
            format!("{REPOSITORY}{}", target.display())
        };
        let new = link.to.replacen(to, &new, 1);
        // The words of a link may say its address too; the address stands last.
        if let Some(at) = text[link.span.clone()].rfind(&link.to) {
            let start = link.span.start + at;
            changed.replace_range(start..start + link.to.len(), &new);
        }
    }
    changed
}

/// The files of the book, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, MAX_DEPTH, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if !path.is_dir() {
            found.push(path);
        } else if depth > 0 {
            collect(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_where_the_book_has_the_page_or_to_the_repository() {
        let text =
            "[`../sdk/a.py`](../sdk/a.py) [b](c.md#d) [e](../README.md#f) [g](https://h.example) [i](j/README.md#k)\n";
        let (root, pages) = (Path::new("/tree"), Path::new("/tree/docs"));
        let expected = format!(
            "[`../sdk/a.py`]({REPOSITORY}sdk/a.py) [b](c.md#d) [e]({REPOSITORY}README.md#f) [g](https://h.example) [i](j/index.md#k)\n"
        );
        assert_eq!(with_links_of_the_book(text, pages, root, pages), expected);
    }

    #[test]
    fn every_page_of_this_tree_is_in_the_book() {
        every_page_is_listed(&plugins::root().join(PAGES)).unwrap();
    }

    #[test]
    fn a_page_that_is_not_listed_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SUMMARY), "- [a](a.md)\n").unwrap();
        fs::write(folder.path().join("a.md"), "").unwrap();
        every_page_is_listed(folder.path()).unwrap();
        fs::write(folder.path().join("b.md"), "").unwrap();
        assert!(every_page_is_listed(folder.path()).unwrap_err().to_string().ends_with("does not list b.md"));
    }
}
