//! The hostile holder of a lease on Vault, OpenBao and Conjur.
