//! What a statement may bring back. Each dialect has the server itself enforce it: a client that
//! reads a row has it in memory before it can look at it.

/// What a query may give.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBounds {
    pub(crate) rows: u32,
    pub(crate) columns: usize,
    /// Of all rows together.
    pub(crate) bytes: usize,
}

/// What a statement is run for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// Its effect.
    Execute,
    /// Its rows.
    Query(RowBounds),
}
