//! What of a request the policies of a configuration can read. Only that is fetched from the host: a decision
//! then depends on no more, and the record says so.
//!
//! Found by words in the policies' text, so it may be more than is read, and never less: a text in which a word
//! could hide (behind an escape, or a context that is used as a whole) reads everything.

use std::collections::BTreeSet;

use jit_plugin::Request;

/// What the policies can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Everything, since the text does not say what.
    everything: bool,
    /// Words of the text that are names of the context.
    words: BTreeSet<&'static str>,
    /// Tags that are read by name; none where any could be.
    tags: Option<BTreeSet<String>>,
}

/// The members of the context, and what of them is made of the moment.
const WORDS: [&str; 13] = [
    "time",
    "now",
    "weekday",
    "hour",
    "minute",
    "ttl",
    "credential",
    "verifier",
    "reason",
    "ticket",
    "facts",
    "numbers",
    "metadata",
];
const OF_THE_MOMENT: [&str; 5] = ["time", "now", "weekday", "hour", "minute"];

impl Reads {
    /// Of a text of policies.
    pub(crate) fn of(policies: &str) -> Self {
        let everything = policies.contains('\\') || !context_by_member(policies);
        let words = WORDS.into_iter().filter(|word| policies.contains(word)).collect();
        Self { everything, words, tags: tags(policies) }
    }

    /// Everything: for samples that are held against a schema.
    pub(crate) fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether that member of the context.
    pub(crate) fn word(&self, word: &str) -> bool {
        self.everything || self.words.contains(word)
    }

    /// Whether anything of the time.
    pub(crate) fn moment(&self) -> bool {
        OF_THE_MOMENT.iter().any(|word| self.word(word))
    }

    /// The identity's attributes that a policy can read.
    pub(crate) fn attributes(&self, request: &Request) -> Vec<(String, String)> {
        self.tagged(|| request.attributes().to_vec(), |name| request.attribute(name))
    }

    /// The facts that a policy can read.
    pub(crate) fn facts(&self, request: &Request) -> Vec<(String, String)> {
        if !self.word("facts") && !self.word("numbers") {
            return Vec::new();
        }
        self.tagged(|| request.facts().to_vec(), |name| request.fact(name))
    }

    /// The caller's metadata that a policy can read.
    pub(crate) fn metadata(&self, request: &Request) -> Vec<(String, String)> {
        if !self.word("metadata") {
            return Vec::new();
        }
        self.tagged(|| request.all_metadata().to_vec(), |name| request.metadata(name))
    }

    fn tagged<'r>(
        &self,
        all: impl FnOnce() -> Vec<(String, String)>,
        one: impl Fn(&str) -> Option<&'r str>,
    ) -> Vec<(String, String)> {
        match &self.tags {
            Some(names) if !self.everything => {
                names.iter().filter_map(|name| Some((name.clone(), one(name)?.to_owned()))).collect()
            }
            _ => all(),
        }
    }
}

/// Whether the context is only ever asked for a member: `context.ttl`, `context has ttl`, `context["ttl"]`.
fn context_by_member(policies: &str) -> bool {
    policies.match_indices("context").all(|(at, word)| {
        let rest = policies[at + word.len()..].trim_start();
        rest.starts_with('.') || rest.starts_with("has") || rest.starts_with('[')
    })
}

/// The names in `hasTag("…")` and `getTag("…")`; none where another expression says the name.
fn tags(policies: &str) -> Option<BTreeSet<String>> {
    let named = policies.match_indices("Tag").map(|(at, word)| {
        let rest = policies[at + word.len()..].trim_start().strip_prefix('(')?.trim_start().strip_prefix('"')?;
        let (name, rest) = rest.split_once('"')?;
        rest.trim_start().starts_with(')').then(|| name.to_owned())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use jit_plugin::testing::request;

    use super::*;

    fn asked() -> Request<'static> {
        request().with_attribute("env", "prod").with_attribute("team", "x").with_fact("edr.score", "9")
    }

    fn names(pairs: Vec<(String, String)>) -> Vec<String> {
        pairs.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_named_is_read_and_the_rest_is_not() {
        let reads = Reads::of(
            r#"permit (principal, action, resource) when { principal.hasTag("env") && principal.getTag( "env" ) == "prod"
                && context.ttl < 60 && context has reason };"#,
        );
        assert_eq!(names(reads.attributes(&asked())), ["env"]);
        assert!(reads.word("ttl") && reads.word("reason") && !reads.word("ticket") && !reads.moment());
        assert!(reads.facts(&asked()).is_empty() && reads.metadata(&asked()).is_empty());
        let reads =
            Reads::of(r#"permit (principal, action, resource) when { context.numbers.getTag("edr.score") > 7 };"#);
        assert_eq!(names(reads.facts(&asked())), ["edr.score"]);
        assert!(reads.attributes(&asked()).is_empty());
        assert!(Reads::of("permit (principal, action, resource);").attributes(&asked()).is_empty());
    }

    #[test]
    fn where_a_name_could_hide_everything_is_read() {
        for text in [
            r#"permit (principal, action, resource) when { principal.getTag(principal.name) == "x" };"#,
            r#"permit (principal, action, resource) when { principal.hasTag(if true then "a" else "b") };"#,
            r#"permit (principal, action, resource) when { principal.hasTag("a" ) && principal . getTag /* */ ("b") };"#,
        ] {
            assert_eq!(names(Reads::of(text).attributes(&asked())), ["env", "team"], "{text}");
        }
        for text in [
            r#"permit (principal, action, resource) when { context["re\u{61}son"] == "x" };"#,
            "permit (principal, action, resource) when { [context].contains(context) };",
            "permit (principal, action, resource) when { context == {ttl: 1} };",
        ] {
            let reads = Reads::of(text);
            assert!(WORDS.iter().all(|word| reads.word(word)) && reads.moment(), "{text}");
            assert_eq!(names(reads.attributes(&asked())), ["env", "team"]);
        }
    }
}
