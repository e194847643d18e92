//! How a query is bounded by the server.

use std::fmt::Write as _;

use crate::capability::sql::bounds::RowBounds;

/// One message: a read-only transaction with the template's rows, one more than wanted (to know
/// whether there are more), each with a last column that says whether it is short enough; the
/// columns of one that is not are NULL.
///
/// The names are ours, so that columns may have any or the same. The limit has the server keep the
/// rows before they are measured: what is measured is what is sent.
pub(crate) fn within(statement: &str, columns: usize, bounds: RowBounds) -> String {
    let name = |place: usize| format!("`c{place}`");
    let names = (0..columns).map(name).collect::<Vec<_>>().join(", ");
    let length = (0..columns).map(|place| format!("IFNULL(OCTET_LENGTH({}), 0)", name(place)));
    let length = length.collect::<Vec<_>>().join(" + ");
    let shown = (0..columns).map(|place| format!("IF(`fits` = 1, {0}, NULL) AS {0}", name(place)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    let (rows, bytes) = (u64::from(bounds.rows) + 1, bounds.bytes);
    let mut out = String::with_capacity(statement.len() + 200 + columns * 90);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "START TRANSACTION READ ONLY;\n\
         WITH `jit rows` ({names}) AS (\n{statement}\n), \
         `jit first` AS (SELECT * FROM `jit rows` LIMIT {rows}), \
         `jit measured` AS (SELECT {names}, ({length}) <= {bytes} AS `fits` FROM `jit first`) \
         SELECT {shown}, `fits` FROM `jit measured` LIMIT {rows};\n\
         COMMIT"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_one_row_more_than_it_gives_and_none_that_is_too_long() {
        let text = within("SELECT 1, 2", 2, RowBounds { rows: u32::MAX, columns: 2, bytes: 77 });
        assert!(text.starts_with("START TRANSACTION READ ONLY;\n") && text.ends_with(";\nCOMMIT"), "{text}");
        assert!(text.contains("(`c0`, `c1`) AS (\nSELECT 1, 2\n)"), "{text}");
        assert_eq!(text.matches("LIMIT 4294967296").count(), 2, "{text}");
        assert!(text.contains("<= 77 AS `fits`") && text.contains("IF(`fits` = 1, `c1`, NULL)"), "{text}");
    }
}
