//! The signals that mean something to the agent.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::error::AgentError;

/// What is listened to from the agent's first moment on. What comes before somebody asks for it is kept: a stop
/// during the start is a stop.
pub(crate) struct Signals {
    streams: [(unix::Signal, Signal); 6],
    /// What a terminal sends reaches the command too: both are what runs in its foreground.
    pub(crate) terminal: bool,
}

impl Signals {
    /// Begins to listen. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, AgentError> {
        let on = |kind, name| {
            let stream = signal(kind).map_err(|error| AgentError::Config(format!("no signals: {error}")))?;
            Ok::<_, AgentError>((stream, name))
        };
        let streams = [
            on(SignalKind::terminate(), Signal::TERM)?,
            on(SignalKind::interrupt(), Signal::INT)?,
            on(SignalKind::hangup(), Signal::HUP)?,
            on(SignalKind::quit(), Signal::QUIT)?,
            on(SignalKind::user_defined1(), Signal::USR1)?,
            on(SignalKind::user_defined2(), Signal::USR2)?,
        ];
        Ok(Self { streams, terminal: is_in_the_foreground() })
    }

    /// Waits for one that ends whoever runs no command.
    pub(crate) async fn end(&mut self) {
        while !is_end(self.next().await) {}
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        let [one, two, three, four, five, six] = &mut self.streams;
        tokio::select! {
            _ = one.0.recv() => one.1,
            _ = two.0.recv() => two.1,
            _ = three.0.recv() => three.1,
            _ = four.0.recv() => four.1,
            _ = five.0.recv() => five.1,
            _ = six.0.recv() => six.1,
        }
    }

    /// Whether the command needs to be told of one that we got.
    pub(crate) fn is_to_be_passed_on(&self, signal: Signal) -> bool {
        !(self.terminal && matches!(signal, Signal::INT | Signal::QUIT))
    }
}

/// Whether a signal ends the agent where there is no command that could make something else of it.
pub(crate) fn is_end(signal: Signal) -> bool {
    matches!(signal, Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT)
}

/// Whether we are what runs in the foreground of a terminal.
fn is_in_the_foreground() -> bool {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(terminal) = open("/dev/tty", flags, Mode::empty()) else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}
