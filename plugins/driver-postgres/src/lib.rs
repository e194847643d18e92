//! plugins/driver-postgres
