//! What a statement may bring back, enforced by the server: a client that reads a row has it in
//! memory before it can look at it.

use crate::capability::sql::bounds::{Purpose, RowBounds};
use crate::capability::sql::template::{Output, Template};

/// What the server says of a row that is too long, by way of a conversion that fails.
pub(crate) const ROW_TOO_LONG: &str = "jit-broker: row of bytes ";

/// The template's rows, under a name that no template can be expected to use. Materialized, so
/// that what a template does is done once, whatever is asked about its rows.
const ROWS_BEGIN: &str = "WITH \"jit rows\" AS MATERIALIZED (\n";

/// What stands before and after the template's text.
///
/// # Errors
/// Why the template cannot serve this purpose.
pub(crate) fn around(purpose: Purpose, template: &Template) -> Result<(&'static str, String), &'static str> {
    match (purpose, template.output()) {
        (Purpose::Execute, Output::Nothing) => Ok(("", String::new())),
        // Run for its effect: its rows stay in the server.
        (Purpose::Execute, Output::Rows) => {
            Ok((ROWS_BEGIN, "\n) SELECT pg_catalog.count(*) FROM \"jit rows\"".to_owned()))
        }
        (Purpose::Execute, Output::OtherRows) => {
            Err("gives rows, which execute does not bring: leave them out, or use query")
        }
        (Purpose::Query(bounds), _) => Ok((ROWS_BEGIN, after(bounds))),
    }
}

/// One row more than wanted, to know whether there are more; and none that is too long. Its
/// length is that of its text form, which is no shorter than its columns.
fn after(bounds: RowBounds) -> String {
    let (rows, bytes) = (u64::from(bounds.rows) + 1, bounds.bytes);
    // Qualified: what a template's own WITH or the database defines is never called here.
    let length = "pg_catalog.octet_length((\"jit rows\".*)::pg_catalog.text)";
    format!(
        "\n) SELECT \"jit rows\".* FROM \"jit rows\" WHERE CASE WHEN {length} OPERATOR(pg_catalog.<=) {bytes} \
         THEN true ELSE ('{ROW_TOO_LONG}' OPERATOR(pg_catalog.||) {length}::pg_catalog.text)::pg_catalog.bool END \
         LIMIT {rows}"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::capability::sql::dialect::SqlKind;

    fn parse(text: &str) -> Template {
        Template::parse(text, SqlKind::Postgres).unwrap()
    }

    #[test]
    fn execute_brings_no_rows() {
        let around = |text: &str| around(Purpose::Execute, &parse(text));
        assert_eq!(around("DROP ROLE {}").unwrap(), ("", String::new()));
        assert!(around("SELECT f({})").unwrap().1.contains("count(*)"));
        assert!(around("DELETE FROM t RETURNING *").is_err());
        assert!(around("SHOW all").is_err());
    }

    #[test]
    fn a_query_reads_one_row_more_than_it_gives() {
        let query = Purpose::Query(RowBounds { rows: u32::MAX, columns: 1, bytes: 77 });
        let (before, after) = around(query, &parse("SELECT 1 -- one")).unwrap();
        // On lines of their own: a template may end in a comment.
        assert!(before.ends_with("(\n") && after.starts_with("\n)"));
        assert!(after.ends_with("LIMIT 4294967296") && after.contains("<=) 77 "), "{after}");
    }
}
