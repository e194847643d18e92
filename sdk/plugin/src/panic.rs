//! A panic of a plugin is a trap, which says nothing. The hook tells the host's log what and where.

/// Installs the hook, once per instance. Every exported call does it first, because the host makes
/// a fresh instance for each call.
pub(crate) fn install() {
    #[cfg(target_arch = "wasm32")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            std::panic::set_hook(Box::new(|panic| {
                let message = panic.payload_as_str().unwrap_or("(no message)");
                let place = panic.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
                crate::log::error(&format!("panicked: {message}"), &[("place", &place)]);
            }));
        });
    }
}
