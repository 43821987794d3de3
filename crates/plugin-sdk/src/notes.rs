//! Serialises values for notes and stored entries as JSON, which later versions of a plugin can still parse.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;

pub(crate) fn read<T: DeserializeOwned>(key: &str, bytes: Option<Vec<u8>>) -> Result<Option<T>, HostError> {
    let Some(bytes) = bytes else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| HostError::Invalid(format!("value of `{key}`: {error}")))
}

pub(crate) fn write<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, HostError> {
    serde_json::to_vec(value).map_err(|error| HostError::Invalid(format!("value for `{key}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_was() {
        let bytes = write("k", &vec![1, 2]).unwrap();
        assert_eq!(read::<Vec<u32>>("k", Some(bytes)), Ok(Some(vec![1, 2])));
        assert_eq!(read::<u32>("k", None), Ok(None));
    }

    #[test]
    fn a_value_of_another_kind_names_its_key() {
        let Err(HostError::Invalid(text)) = read::<u32>("count", Some(b"\"x\"".to_vec())) else {
            panic!("read")
        };
        assert!(text.contains("`count`"), "{text}");
    }
}
