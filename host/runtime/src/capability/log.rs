//! Lines of plugins in the host's log, under the target `plugin` with the plugin's name beside
//! them. A plugin can write what it likes there and still not forge another line, paint a terminal
//! or fill a disk.

use wasmtime::component::Linker;

use crate::bindings::log::{Host, Level, add_to_linker};
use crate::capability::Capability;
use crate::text::escape;
use crate::view::{HasView, View, ViewOf};

/// Registers it.
pub(crate) struct LogCapability;

impl Capability for LogCapability {
    fn link<T: HasView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, ViewOf>(linker, T::view)
    }
}

impl Host for View<'_> {
    fn write(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        let bytes = message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.meter.enter_host(bytes)?;
        let (number, most) = (self.meter.count_log_line(), self.meter.limits.log_lines);
        if self.meter.is_muted() {
            return Ok(());
        }
        if number <= most {
            emit(&self.meter.plugin, level, &line(&message, &fields, self.meter.limits.log_line_bytes));
        } else if number == most.saturating_add(1) {
            emit(&self.meter.plugin, Level::Warn, &format!("more than {most} log lines in one call: the rest is cut"));
        }
        Ok(())
    }
}

/// One line: the message, and its fields in brackets after it, escaped, of at most `max` bytes before escaping.
fn line(message: &str, fields: &[(String, String)], max: usize) -> String {
    let mut text = escape(message, max);
    let mut left = max.saturating_sub(message.len());
    let mut open = false;
    for (name, value) in fields {
        let needed = name.len() + value.len() + 4;
        let separator = if open { "; " } else { " [" };
        if needed > left {
            text.push_str(if open { "; …" } else { " …" });
            break;
        }
        left -= needed;
        open = true;
        text.push_str(separator);
        text.push_str(&escape(name, max));
        text.push_str(": ");
        text.push_str(&escape(value, max));
    }
    if open {
        text.push(']');
    }
    text
}

fn emit(plugin: &str, level: Level, line: &str) {
    match level {
        Level::Error => tracing::error!(target: "plugin", plugin, "{line}"),
        Level::Warn => tracing::warn!(target: "plugin", plugin, "{line}"),
        Level::Info => tracing::info!(target: "plugin", plugin, "{line}"),
        Level::Debug => tracing::debug!(target: "plugin", plugin, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn fields_are_escaped_like_the_message() {
        let fields = [pair("role\n", "a\u{1b}[0m")];
        assert_eq!(line("hi\n", &fields, 100), "hi\\n [role\\n: a\\u{1b}[0m]");
    }

    #[test]
    fn a_line_is_cut_with_its_fields() {
        let long = line(&"x".repeat(10_000), &[pair("a", "b")], 4_096);
        assert_eq!(long, format!("{}… …", "x".repeat(4_096)));
        let fields: Vec<_> = (0..1_000).map(|i| pair("k", &i.to_string())).collect();
        assert!(line("m", &fields, 64).len() < 80);
        assert!(line("m", &fields, 64).ends_with("; …]"));
        assert_eq!(line("m", &[pair("target", "a"), pair("who", "b, c")], 64), "m [target: a; who: b, c]");
    }
}
