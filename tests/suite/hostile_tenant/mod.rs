//! HOSTILE-TENANT: what the holder of a lease can do in the target makes its access neither stronger nor
//! longer, gives it to nobody else, and never makes the broker's own session work for it.

mod directory;
mod http_backends;
mod mysql;
mod postgres;
