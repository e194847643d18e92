//! plugins/policy-allow-list
