//! What drivers say while a target is checked: their warnings are for whoever runs the check, which
//! has no log.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// The most lines of one target that are kept. The host has bounded each.
const MOST_LINES: usize = 100;

/// Lines by target.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Said {
    /// Listens from now on, in this process. Where something listens already, nothing is heard here.
    pub(super) fn listen() -> Self {
        let said = Self::default();
        let _listens = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(said.clone()));
        said
    }

    /// What was said about that target.
    pub(super) fn of(&self, target: &str) -> Vec<String> {
        self.0.lock().remove(target).unwrap_or_default()
    }
}

/// The target that a span is about.
struct About(String);

/// One field's value.
struct Wanted(&'static str, Option<String>);

impl Visit for Wanted {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == self.0 {
            self.1 = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.0 {
            self.1 = Some(value.to_owned());
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Said {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut target = Wanted(jit_pipeline::target_check::ABOUT_TARGET, None);
        attributes.record(&mut target);
        if let (Some(target), Some(span)) = (target.1, context.span(id)) {
            span.extensions_mut().insert(About(target));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Lines of plugins; what is worse than a warning is a warning here as well.
        if event.metadata().target() != "plugin" || *event.metadata().level() > Level::WARN {
            return;
        }
        let mut line = Wanted("message", None);
        event.record(&mut line);
        let about = context.event_scope(event).and_then(|spans| {
            spans.from_root().find_map(|span| span.extensions().get::<About>().map(|about| about.0.clone()))
        });
        if let (Some(line), Some(target)) = (line.1, about) {
            let mut said = self.0.lock();
            let lines = said.entry(target).or_default();
            if lines.len() < MOST_LINES {
                lines.push(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_kept_by_target_and_the_rest_is_not() {
        let said = Said::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(said.clone()), || {
            for target in ["one", "two"] {
                tracing::info_span!("check", checked_target = target).in_scope(|| {
                    tracing::warn!(target: "plugin", plugin = "p", "{}", format!("{target} has SUPERUSER"));
                    tracing::info!(target: "plugin", plugin = "p", "fine");
                    tracing::warn!("not a plugin's");
                });
            }
            tracing::warn!(target: "plugin", plugin = "p", "about no target");
        });
        assert_eq!(said.of("one"), ["one has SUPERUSER"]);
        assert_eq!(said.of("two"), ["two has SUPERUSER"]);
        assert!(said.of("one").is_empty() && said.0.lock().is_empty());
    }
}
