//! Secrets such as passwords, read from a file, from the environment or, with a warning, from the configuration itself.

use std::ffi::OsStr;
use std::path::Path;

use toml::de::DeValue;

use crate::reader::{ReadValue, Spot, Value, wrong_type};
use crate::value_kind::ValueKind;
use crate::{Cause, SecretRule, exposed, files};

/// A secret. It does not implement `Debug`, so that it cannot get into a log.
#[derive(Clone, Default)]
pub(crate) struct SecretText(pub(crate) String);

impl ReadValue for SecretText {
    fn kind() -> ValueKind {
        ValueKind::Secret
    }

    fn read(value: &Value<'_>, spot: &Spot<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(text) => {
                spot.warn(SecretRule::InlineSecret);
                if !spot.reader.is_secret.replace(true) {
                    spot.guard(&spot.reader.path, exposed::FileKind::Secret);
                }
                Some(Self(text.to_string()))
            }
            DeValue::Table(table) if table.len() == 1 => {
                let (key, value) = table.iter().next()?;
                let source = value.get_ref().as_str();
                match (key.get_ref().as_ref(), source) {
                    ("file", Some(path)) => secret_file(&spot.reader.base.join(path), spot),
                    ("env", Some(name)) => secret_variable(name, spot),
                    _ => {
                        wrong_type::<Self>(value, spot);
                        None
                    }
                }
            }
            _ => {
                wrong_type::<Self>(value, spot);
                None
            }
        }
    }
}

fn secret_file(path: &Path, spot: &Spot<'_>) -> Option<SecretText> {
    spot.guard(path, exposed::FileKind::Secret);
    let text = files::text(path).map_err(|error| error.to_string());
    // Editors add a line end to files, which is not part of the secret.
    let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match text {
        Ok(secret) if !secret.is_empty() => return Some(SecretText(secret)),
        Ok(_) => spot.complain(Cause::File { path: path.to_owned(), why: "it is empty".into() }),
        Err(why) => spot.complain(Cause::File { path: path.to_owned(), why }),
    }
    None
}

fn secret_variable(name: &str, spot: &Spot<'_>) -> Option<SecretText> {
    let value = std::env::var_os(name).as_deref().and_then(OsStr::to_str).map(str::to_owned);
    let value = value.filter(|value| !value.is_empty());
    if value.is_none() {
        spot.complain(Cause::Environment(name.to_owned()));
    }
    value.map(SecretText)
}
