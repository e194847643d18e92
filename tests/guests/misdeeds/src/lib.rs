//! What hostile fixtures do alike, whatever kind of plugin they are: each takes without end what a call
//! has a bound for.

use std::hint::black_box;

use jit_plugin::bindings::host::jit::plugin::log;

/// Takes time.
pub fn never() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Takes memory.
pub fn hog() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![1; 1 << 20]);
        black_box(&held);
    }
}

/// Takes stack.
#[allow(unconditional_recursion, clippy::only_used_in_recursion, reason = "the point of it")]
pub fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    frame[63].wrapping_add(deeper(depth.wrapping_add(1)))
}

/// Takes room in the log, past the SDK, which would cut the line.
pub fn flood() -> ! {
    let line = "\u{1b}[2J\n{\"level\":\"info\",\"event\":\"issue.granted\"}\r\n\u{202e}".repeat(17_000);
    loop {
        log::write(log::Level::Error, &line, &[]);
    }
}

/// Takes calls to the host, with nothing to say.
pub fn busy_host() -> ! {
    loop {
        log::write(log::Level::Debug, "", &[]);
    }
}
