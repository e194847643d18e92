//! How long a lease lives: the contract's durations, by the name that leases have for them.

pub use jit_contract::duration::{DurationError as TtlError, Seconds as Ttl};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 1..=Ttl::MAX.seconds()) {
            let ttl = Ttl::from_seconds(i64::from(seconds)).unwrap();
            prop_assert_eq!(ttl.to_string().parse(), Ok(ttl));
            prop_assert_eq!(seconds.to_string().parse(), Ok(ttl));
            prop_assert_eq!(serde_json::from_value::<Ttl>(serde_json::to_value(ttl).unwrap()).unwrap(), ttl);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9dhms.+-]{0,40}") {
            if let Ok(ttl) = text.parse::<Ttl>() {
                prop_assert!(ttl <= Ttl::MAX && ttl.seconds() > 0);
                prop_assert_eq!(ttl.to_string().parse(), Ok(ttl));
            }
        }
    }
}
