//! Room on the disk of the store.

/// Below which marks something is no longer done, in bytes that are free. None is a share of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Denials are only counted: by default 1 GiB, or a tenth of the file system if that is less.
    pub low: Option<u64>,
    /// Nothing new is handed out: by default 256 MiB, or a twentieth of the file system if that is less.
    pub stop: Option<u64>,
    /// How large the reserve is: by default 16 MiB, or a fiftieth of the file system if that is less.
    pub reserve: Option<u64>,
}
