//! The log as JSON, an object a line. No key stands in it twice: the module that speaks is `module`, and
//! `target` is the broker's own word for where accounts are made.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// What stands in every line. An event's own field of such a name is told as `field.NAME`.
const OWN: [&str; 4] = ["timestamp", "level", "message", "module"];

/// The key of a field.
fn named(field: &str) -> String {
    if OWN.contains(&field) { format!("field.{field}") } else { field.to_owned() }
}

/// Formats an event as one line of JSON.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let own = |key: &str, value: Value| format!("{}:{}", Value::from(key), value);
        let mut parts = vec![
            own("timestamp", Timestamp::now().to_string().into()),
            own("level", metadata.level().as_str().into()),
            own("message", fields.message.take().unwrap_or_default().into()),
        ];
        // What an event says itself counts, then what the innermost span says: a request's id stands in every line of
        // the request, at one place.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let told = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.as_str());
            let about: BTreeMap<String, Value> = serde_json::from_str(told).unwrap_or_default();
            for (name, value) in about {
                fields.others.entry(named(&name)).or_insert(value);
            }
        }
        parts.extend(fields.others.into_iter().map(|(key, value)| own(&key, value)));
        parts.push(own("module", metadata.target().into()));
        writeln!(writer, "{{{}}}", parts.join(","))
    }
}

/// An event's fields, each name once.
#[derive(Default)]
struct Fields {
    message: Option<String>,
    others: BTreeMap<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name == "message" {
            self.message = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        } else {
            self.others.insert(named(name), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde::Deserializer as _;
    use serde::de::{MapAccess, Visitor};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// An object whose keys are read one by one: a key that stands there twice is an error.
    fn strict(line: &str) -> BTreeMap<String, Value> {
        struct Strict;
        impl<'de> Visitor<'de> for Strict {
            type Value = BTreeMap<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut all, mut seen) = (BTreeMap::new(), BTreeSet::new());
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("{key} is there twice")));
                    }
                    all.insert(key, value);
                }
                Ok(all)
            }
        }
        let mut reader = serde_json::Deserializer::from_str(line);
        reader.deserialize_map(Strict).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn no_key_stands_twice_and_the_targets_name_is_kept() {
        let lines = Lines::default();
        let log = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || log.clone())
            .event_format(JsonLines)
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target = "inventory_db", tries = 3, "quoted \"words\"\nand a second line");
            tracing::info!(module = "mine", level = "low", timestamp = 1, good = true, "own words of the format");
            let span =
                tracing::info_span!("request", request_id = "req_1", target = "shop_db", role = tracing::field::Empty);
            span.in_scope(|| {
                span.record("role", "reader");
                tracing::info_span!("inner", request_id = "req_2", level = "low").in_scope(|| {
                    tracing::info!(target: "plugin", target = "other_db", "in a span");
                });
                tracing::info!("in the outer one");
            });
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let read: Vec<_> = text.lines().map(strict).collect();
        assert_eq!(read.len(), 4, "{text}");
        assert_eq!((&read[0]["target"], &read[0]["tries"]), (&Value::from("inventory_db"), &Value::from(3)));
        assert_eq!(read[0]["message"], "quoted \"words\"\nand a second line");
        assert_eq!(read[0]["module"], module_path!());
        assert_eq!((&read[1]["field.module"], &read[1]["field.level"]), (&"mine".into(), &"low".into()));
        assert_eq!((&read[1]["level"], &read[1]["good"]), (&"INFO".into(), &true.into()));
        assert_eq!((&read[2]["target"], &read[2]["module"]), (&"other_db".into(), &"plugin".into()));
        assert_eq!((&read[2]["request_id"], &read[2]["role"]), (&"req_2".into(), &"reader".into()));
        assert_eq!(read[2]["field.level"], "low");
        assert_eq!((&read[3]["request_id"], &read[3]["target"]), (&"req_1".into(), &"shop_db".into()));
    }
}
