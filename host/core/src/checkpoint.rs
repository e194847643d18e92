//! Signed checkpoints (C2SP).
