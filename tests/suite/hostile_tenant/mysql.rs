//! The hostile holder of a lease on MySQL and MariaDB.
