//! How long steps tell what they are doing.

/// Receives what a build is doing, for a person to watch.
pub trait Progress {
    /// A step begins: one short sentence, worth a line of its own.
    fn step(&self, message: &str);

    /// Something within the step (a line of cargo's output); of passing interest.
    fn detail(&self, line: &str) {
        let _ = line;
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _message: &str) {}
}

impl<F: Fn(&str)> Progress for F {
    fn step(&self, message: &str) {
        self(message);
    }
}
