//! The Merkle tree over the audit log (RFC 6962).
