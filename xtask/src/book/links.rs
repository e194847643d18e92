//! The links of the Markdown pages: each one that stays in the tree leads to something that is there.
//!
//! In scope: files, folders and headings of this tree. Out of scope: whether a page on the internet answers; a
//! check that depends on somebody else's server fails for reasons that no change here can mend.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// A link as it stands on a page.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it leads.
    pub to: String,
    /// The whole link in the page's text, its words included.
    pub span: Range<usize>,
}

impl Link {
    /// The path and the heading that a link into this tree names. `None` for a link to another site.
    #[must_use]
    pub fn in_tree(&self) -> Option<(&str, Option<&str>)> {
        let elsewhere = self.to.contains("://") || self.to.starts_with("mailto:") || self.to.starts_with("//");
        if elsewhere {
            return None;
        }
        Some(match self.to.split_once('#') {
            Some((path, heading)) => (path, Some(heading)),
            None => (self.to.as_str(), None),
        })
    }
}

/// What a page has that links are about.
#[derive(Debug, Default)]
pub struct Page {
    /// Its links and pictures, in order.
    pub links: Vec<Link>,
    /// The names by which its headings are linked to.
    pub headings: BTreeSet<String>,
}

impl Page {
    /// Reads a page's text.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        let mut heading: Option<String> = None;
        for (event, span) in Parser::new_ext(text, options()).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { to: dest_url.into_string(), span });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let name = heading_name(&heading.take().unwrap_or_default());
                    let before = times.entry(name.clone()).or_default();
                    page.headings.insert(if *before == 0 { name } else { format!("{name}-{before}") });
                    *before += 1;
                }
                _ => {}
            }
        }
        page
    }
}

/// The extensions that mdBook reads too.
fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

/// A heading's name in a link, as mdBook and the usual forges make it.
fn heading_name(words: &str) -> String {
    words
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
            c if c.is_whitespace() => Some('-'),
            _ => None,
        })
        .collect()
}

/// A path without `.` and `..`, by its words alone.
#[must_use]
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// The links of these pages that lead nowhere, each as a line with its page and its line number.
///
/// # Errors
/// When a page cannot be read.
pub fn broken(root: &Path, pages: &[PathBuf]) -> Result<Vec<String>> {
    let mut read: BTreeMap<PathBuf, Page> = BTreeMap::new();
    let mut found = Vec::new();
    for path in pages {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let folder = path.parent().unwrap_or(root);
        for link in Page::read(&text).links {
            let Some((to, heading)) = link.in_tree() else { continue };
            let target = if to.is_empty() { path.clone() } else { plain(&folder.join(to)) };
            let wrong = if !target.exists() {
                Some("there is no such file")
            } else if let Some(heading) = heading.filter(|_| target.extension().is_some_and(|ext| ext == "md")) {
                if !read.contains_key(&target) {
                    let text =
                        fs::read_to_string(&target).with_context(|| format!("cannot read {}", target.display()))?;
                    read.insert(target.clone(), Page::read(&text));
                }
                let there = read.get(&target).is_some_and(|page| page.headings.contains(heading));
                (!there).then_some("the page has no such heading")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                let line = text[..link.span.start].matches('\n').count() + 1;
                let page = path.strip_prefix(root).unwrap_or(path);
                found.push(format!("{}:{line}: {}: {wrong}", page.display(), link.to));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_the_names_that_readers_link_to() {
        let page = Page::read("# What `it` is: a test\n## Ways in\n## Ways in\n```\n# no heading\n```\n");
        let names: Vec<&str> = page.headings.iter().map(String::as_str).collect();
        assert_eq!(names, ["ways-in", "ways-in-1", "what-it-is-a-test"]);
    }

    #[test]
    fn links_in_code_are_no_links() {
        let page =
            Page::read("[a](b.md#c) `[d](e.md)` ![f](g.svg)\n\n```\n[h](i.md)\n```\n[j]\n\n[j]: https://k.example\n");
        let links: Vec<_> = page.links.iter().map(|link| (link.to.as_str(), link.in_tree())).collect();
        assert_eq!(
            links,
            [("b.md#c", Some(("b.md", Some("c")))), ("g.svg", Some(("g.svg", None))), ("https://k.example", None)]
        );
    }

    #[test]
    fn what_leads_nowhere_is_found_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("docs")).unwrap();
        fs::write(root.join("README.md"), "# Top\n").unwrap();
        let page = root.join("docs/page.md");
        let text = "# Page\n[a](../README.md#top) [b](#page) [c](../README.md)\n[d](gone.md)\n\n[e](../README.md#bottom) [f](#none)\n";
        fs::write(&page, text).unwrap();
        assert_eq!(
            broken(root, &[page]).unwrap(),
            [
                "docs/page.md:3: gone.md: there is no such file",
                "docs/page.md:5: ../README.md#bottom: the page has no such heading",
                "docs/page.md:5: #none: the page has no such heading",
            ]
        );
    }
}
