//! The point in time after which nothing of a result may seem to have been made.

use kiln_oci::Timestamp;

use crate::attrs::{Attrs, parse_int};
use crate::error::ExportError;
use crate::source::{PlatformRef, Source};

/// The exporter's option.
pub const EPOCH_OPTION: &str = "source-date-epoch";
/// The frontend's key in a result, in seconds since the start of 1970.
pub const EPOCH_KEY: &str = "source.date.epoch";

/// What the exporter's options say: nothing, or a time, or (with an empty value) expressly none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochOption(Option<Option<Timestamp>>);

impl EpochOption {
    /// Takes the option out of `attrs`.
    pub fn take(attrs: &mut Attrs) -> Result<Self, ExportError> {
        let Some(value) = attrs.remove(EPOCH_OPTION) else { return Ok(Self(None)) };
        parse(&value)
            .map(|epoch| Self(Some(epoch)))
            .map_err(|reason| ExportError::Epoch { key: EPOCH_OPTION.to_owned(), reason })
    }

    /// The epoch of a platform's result: the option, else what the frontend says for the platform, else what
    /// it says for all.
    pub fn resolve<R>(
        self,
        source: &Source<R>,
        platform: Option<&PlatformRef>,
    ) -> Result<Option<Timestamp>, ExportError> {
        if let Some(given) = self.0 {
            return Ok(given);
        }
        let of_platform = platform.and_then(|platform| source.text(&format!("{EPOCH_KEY}/{}", platform.id)));
        let Some(value) = of_platform.or_else(|| source.text(EPOCH_KEY)) else { return Ok(None) };
        parse(value).map_err(|reason| ExportError::FrontendEpoch { value: value.to_owned(), reason })
    }
}

fn parse(value: &str) -> Result<Option<Timestamp>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let seconds = parse_int(value)?;
    Timestamp::from_unix(seconds).map(Some).ok_or_else(|| format!("{value} is beyond the year 9999"))
}
