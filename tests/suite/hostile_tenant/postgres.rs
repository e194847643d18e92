//! The hostile holder of a lease on PostgreSQL.
