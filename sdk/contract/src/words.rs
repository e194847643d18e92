//! Enums that stand for words.

/// Declares an enum each of whose variants stands for one word, so that the word is written once:
///
/// ```
/// jit_contract::words! {
///     /// How loud it is.
///     #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
///     pub enum Loudness {
///         /// Hardly heard.
///         Quiet = "quiet",
///         /// Heard by all.
///         Loud = "loud",
///     }
/// }
///
/// assert_eq!(Loudness::ALL.map(Loudness::as_str), ["quiet", "loud"]);
/// assert_eq!(Loudness::from_word("loud"), Some(Loudness::Loud));
/// assert_eq!(Loudness::Loud.to_string(), "loud");
/// ```
///
/// The enum gets `ALL`, `as_str`, `from_word` and `Display`, and its derived serde implementations use the same
/// words. It must derive `Clone`, `Copy`, `Serialize` and `Deserialize`. A macro rather than `strum`, because four
/// derives of `strum` and a `serde(rename)` would each hold the word or a rule for it, and because guests link it.
#[macro_export]
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$doc:meta])* $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$meta])*
        $vis enum $name {
            $( $(#[$doc])* #[serde(rename = $word)] $variant, )+
        }

        impl $name {
            /// All of them, in the order of their declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// Its word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                }
            }

            /// The one whose word this is.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $( $word => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
