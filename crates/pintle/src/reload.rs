//! Taking over a changed configuration while mail flows: all that can be, or nothing.

use std::sync::Arc;

use pintle_admin::Reloaded;
use pintle_policy::Chain;
use pintle_tls::{ClientTls, Reload, ServerTls};

use crate::app::Live;
use crate::stock;

type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// SIGHUP: reads the file again and says in the log what came of it.
pub(crate) async fn by_signal(live: &Live) {
    match reload(live).await {
        Ok(done) => tracing::info!(applied = ?done.applied, needs_restart = ?done.needs_restart, "reloaded"),
        Err(error) => tracing::error!(%error, "the old configuration stays in force"),
    }
}

/// Reads the file again and takes over what a running gateway can. On an error everything stays as it was.
pub(crate) async fn reload(live: &Live) -> Result<Reloaded, ReloadError> {
    // Two reloads at once would mix their parts.
    let _turn = live.reloading.lock().await;
    let report = pintle_config::check(&live.config, &stock::components());
    let warnings =
        report.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.cause)).collect();
    let settings = report.into_settings().map_err(|report| report.to_string())?;
    // Everything that can still say no comes first, the plugins last of it; what follows them cannot fail.
    let client_tls = ClientTls::load(&settings.client_tls)?;
    live.server_tls.as_deref().map(ServerTls::reload).transpose()?;
    live.plugins.reconfigure(settings.plugins.clone()).await?;
    live.chain.store(Arc::new(Chain::new(live.plugins.judges())));
    live.rules.replace(settings.inbound.rules.clone());
    live.outbound.reload(settings.outbound.clone(), client_tls);
    let needs_restart = live.at_start.needs_restart(&settings).into_iter().map(str::to_owned).collect();
    live.settings.store(Arc::new(settings));
    let applied = ["certificates", "plugins", "rules", "delivery"].map(str::to_owned).to_vec();
    Ok(Reloaded { applied, needs_restart, warnings })
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
