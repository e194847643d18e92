//! Segments and parameters with places for what is known of a request: `{workload}`, `{ticket}`,
//! `{attributes.env}`. What is put in never becomes structure: the host escapes the whole.

use std::fmt;

use jit_plugin::Request;
use jit_plugin::text::shown;
use serde::{Deserialize, Deserializer, de};

/// The longest template in bytes.
const MAX_TEMPLATE: usize = 512;

/// The longest value that is put into a request, in bytes.
const MAX_VALUE: usize = 512;

/// A text with places.
#[derive(Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Place(Place),
}

#[derive(Debug)]
enum Place {
    Workload,
    Issuer,
    Target,
    Role,
    Ticket,
    Attribute(String),
}

/// Why a template cannot be filled for a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The request lacks the value.
    Absent(String),
    /// The value cannot stand in a request.
    Unfit(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(place) => {
                write!(
                    f,
                    "the request has no {place}, which the endpoint is asked about: `without_value` can say what that means"
                )
            }
            Self::Unfit(place) => write!(
                f,
                "the request's {place} cannot be asked about: it is empty, `.`, `..`, longer than {MAX_VALUE} bytes \
                 or has control characters"
            ),
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_TEMPLATE || text.chars().any(char::is_control) {
            return Err(format!("is empty, longer than {MAX_TEMPLATE} bytes or has control characters"));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(start);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let place = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, after) = place.ok_or("has a `{` or `}` that is not around a place's name")?;
            pieces.push(Piece::Place(Place::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Filled with what is known of the request.
    pub(crate) fn fill(&self, request: &Request) -> Result<String, Missing> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Place(place) => {
                    let value = place.value(request).ok_or_else(|| Missing::Absent(place.to_string()))?;
                    if value.is_empty() || value.len() > MAX_VALUE || value.chars().any(char::is_control) {
                        return Err(Missing::Unfit(place.to_string()));
                    }
                    filled.push_str(value);
                }
            }
        }
        Ok(filled)
    }

    /// Filled as a segment of a path, where dots would walk about.
    pub(crate) fn fill_segment(&self, request: &Request) -> Result<String, Missing> {
        let segment = self.fill(request)?;
        if matches!(segment.as_str(), "." | "..") {
            return Err(Missing::Unfit(self.places()));
        }
        Ok(segment)
    }

    /// Whether it is always the same.
    pub(crate) fn is_constant(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Whether it is a dot segment without a place.
    pub(crate) fn is_dots(&self) -> bool {
        matches!(self.0.as_slice(), [Piece::Text(text)] if text == "." || text == "..")
    }

    fn places(&self) -> String {
        let places: Vec<String> = self
            .0
            .iter()
            .filter_map(|piece| match piece {
                Piece::Place(place) => Some(place.to_string()),
                Piece::Text(_) => None,
            })
            .collect();
        places.join(" and ")
    }
}

impl Place {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "workload" => Self::Workload,
            "issuer" => Self::Issuer,
            "target" => Self::Target,
            "role" => Self::Role,
            "ticket" => Self::Ticket,
            _ => match name.strip_prefix("attributes.") {
                Some(attribute) if !attribute.is_empty() => Self::Attribute(attribute.to_owned()),
                _ => {
                    return Err(format!(
                        "has the place {}, and there are {{workload}}, {{issuer}}, {{target}}, {{role}}, {{ticket}} \
                         and {{attributes.NAME}}",
                        shown(name)
                    ));
                }
            },
        })
    }

    fn value<'r>(&self, request: &'r Request) -> Option<&'r str> {
        match self {
            Self::Workload => Some(request.workload()),
            Self::Issuer => Some(request.issuer()),
            Self::Target => Some(request.target()),
            Self::Role => Some(request.role()),
            Self::Ticket => request.ticket(),
            Self::Attribute(name) => request.attribute(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload => f.write_str("workload"),
            Self::Issuer => f.write_str("issuer"),
            Self::Target => f.write_str("target"),
            Self::Role => f.write_str("role"),
            Self::Ticket => f.write_str("ticket"),
            Self::Attribute(name) => write!(f, "attribute {}", shown(name)),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
