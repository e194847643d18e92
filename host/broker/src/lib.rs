//! host/broker
