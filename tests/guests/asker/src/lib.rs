//! A guest that looks up the client's names, and imports no other service.

use pintle_plugin_sdk::prelude::*;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Asker {}

impl Plugin for Asker {
    const ID: &'static str = "test.asker";
}

impl Asker {
    fn on_mail(&self) -> Result<Verdict, HostError> {
        session::set_fact("names", &session::reverse_names()?.join(","))?;
        Ok(Verdict::Next)
    }
}

pintle_plugin_sdk::export!(Asker: on_mail);
