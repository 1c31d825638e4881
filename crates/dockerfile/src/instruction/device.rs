//! `RUN --device`: a device of the container device interface.

use super::InstructionError;
use crate::error::Error;
use crate::suggest::Case;
use crate::values::{fields, parse_bool};

const KEYS: [&str; 2] = ["name", "required"];

/// A device that a step asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    pub name: String,
    /// Without it the step cannot run.
    pub required: bool,
}

pub(super) fn parse_device(record: &str) -> Result<Device, Error> {
    let mut device = Device::default();
    for field in fields(record).map_err(InstructionError::DeviceRecord)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                let invalid = || InstructionError::KeyValue { key: key.clone(), value: value.to_owned() };
                device.required = parse_bool(value).ok_or_else(invalid)?;
            }
            ("name", Some(_)) if !device.name.is_empty() => {
                return Err(InstructionError::DeviceName(device.name).into());
            }
            ("name", Some(value)) => device.name = value.to_owned(),
            // The name of a device may itself hold an equals sign.
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(InstructionError::NotKeyValue(field).into()),
            (key, Some(_)) => {
                let error = InstructionError::UnknownKey { key: key.to_owned(), field: field.clone() };
                return Err(Error::from(error).suggest(key, KEYS, Case::Sensitive));
            }
        }
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let device = |name: &str, required| Device { name: name.to_owned(), required };
        assert_eq!(parse_device("vendor.com/gpu=0").unwrap(), device("vendor.com/gpu=0", false));
        assert_eq!(parse_device("name=v/c=a,required").unwrap(), device("v/c=a", true));
        assert_eq!(parse_device("required=false,v/c=*").unwrap(), device("v/c=*", false));
        assert_eq!(
            parse_device("a,nam=x").unwrap_err().to_string(),
            "unexpected key 'nam' in 'nam=x' (did you mean name?)"
        );
        assert_eq!(
            parse_device("a,b").unwrap_err().to_string(),
            "invalid field 'b' must be a key=value pair"
        );
    }
}
