//! Taking over a changed configuration while mail flows: all that can be, or nothing.

use std::path::Path;
use std::sync::Arc;

use pintle_admin::Reloaded;
use pintle_config::Settings;
use pintle_policy::Chain;
use pintle_tls::{ClientTls, Reload};

use crate::app::Live;
use crate::stock;

/// SIGHUP: reads the file again and says in the log what came of it.
pub(crate) async fn by_signal(live: &Live, config: &Path) {
    match reload(live, config).await {
        Ok(done) => tracing::info!(applied = ?done.applied, needs_restart = ?done.needs_restart, "reloaded"),
        Err(error) => tracing::error!(%error, "the old configuration stays in force"),
    }
}

/// Reads the file again and takes over what a running gateway can. On an error everything stays as it was.
pub(crate) async fn reload(
    live: &Live,
    config: &Path,
) -> Result<Reloaded, Box<dyn std::error::Error + Send + Sync>> {
    let report = pintle_config::check(config, &stock::components());
    let warnings = report
        .warnings
        .iter()
        .map(|warning| format!("{}: {}", warning.key, warning.cause))
        .collect();
    let settings = report.into_settings().map_err(|report| report.to_string())?;
    let client_tls = ClientTls::load(&settings.client_tls)?;
    // Plugins can still say no; what comes after them cannot.
    live.plugins.reconfigure(settings.plugins.clone()).await?;
    live.chain.store(Arc::new(Chain::new(live.plugins.judges())));
    live.rules.replace(settings.inbound.rules.clone());
    live.outbound.reload(settings.outbound.clone(), client_tls);
    let mut applied = vec!["plugins".to_owned(), "rules".to_owned(), "delivery".to_owned()];
    if let Some(tls) = &live.server_tls {
        tls.reload()?;
        applied.push("certificates".to_owned());
    }
    let before = live.settings.swap(Arc::new(settings));
    let needs_restart = restart_needed(&before, &live.settings.load());
    Ok(Reloaded {
        applied,
        needs_restart,
        warnings,
    })
}

/// Serves renewed certificates without being told.
pub(crate) fn certificates_if_changed(live: &Live) {
    let Some(tls) = &live.server_tls else { return };
    match tls.reload_if_changed() {
        Ok(Reload::Unchanged) => {}
        Ok(Reload::Reloaded) => tracing::info!("certificates reloaded"),
        Err(error) => tracing::error!(%error, "the old certificates stay in force"),
    }
}

fn restart_needed(before: &Settings, after: &Settings) -> Vec<String> {
    before
        .needs_restart(after)
        .into_iter()
        .map(str::to_owned)
        .collect()
}
