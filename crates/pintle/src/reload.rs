//! Configuration reload: puts a changed configuration into force while mail flows. Either everything that can change at
//! run time is applied, or nothing.

use std::collections::HashSet;
use std::sync::Arc;

use pintle_admin::Reloaded;
use pintle_config::Settings;
use pintle_plugin::{AppliedPlugins, PreparedPlugins};
use pintle_policy::Chain;
use pintle_tls::{CertificateReload, ClientTls, RenewedCertificates, ServerTls};
use tokio::task::JoinHandle;

use crate::last_reload::ReloadError;
use crate::parts::GatewayParts;
use crate::stock;

/// Reloads on SIGHUP; the log has the outcome. It runs in a task of its own, since loading plugins may take long and
/// the caller must go on handling other signals.
pub(crate) fn by_signal(parts: &Arc<GatewayParts>) -> JoinHandle<()> {
    let parts = Arc::clone(parts);
    tokio::spawn(async move {
        // `reload` has logged the outcome.
        let _ = reload(&parts).await;
    })
}

/// Reads the configuration file again, applies what can change without a restart, and logs the outcome.
///
/// # Errors
/// The file has mistakes, a part of it cannot be loaded, or the gateway is shutting down. The old configuration stays
/// in force then.
pub(crate) async fn reload(parts: &GatewayParts) -> Result<Reloaded, ReloadError> {
    // Reloads run one at a time: two at once would mix their parts.
    let _turn = parts.reloading.lock().await;
    let mut stopping = parts.stopping.subscribe();
    let outcome = tokio::select! {
        biased;
        // The sender is in `parts` and outlives this call, so the wait cannot fail.
        _ = stopping.wait_for(|stops| *stops) => Err("the gateway is being stopped".into()),
        outcome = take_over(parts) => outcome,
    };
    parts.reloaded.note(&outcome);
    match &outcome {
        Ok(done) => {
            tracing::info!(applied = ?done.applied, needs_restart = ?done.needs_restart, "reloaded");
            for what in &done.needs_restart {
                tracing::warn!(what, "changed in the file, but not in force before a restart");
            }
            for warning in &done.warnings {
                tracing::warn!(warning, "configuration");
            }
        }
        Err(error) => tracing::error!(%error, "the old configuration stays in force"),
    }
    outcome
}

async fn take_over(parts: &GatewayParts) -> Result<Reloaded, ReloadError> {
    Ok(PreparedReload::new(parts).await?.apply(parts))
}

/// A changed configuration that is ready to be applied: everything that can fail has been done, and nothing has changed
/// yet.
struct PreparedReload {
    settings: Settings,
    needs_restart: Vec<String>,
    warnings: Vec<String>,
    client_tls: ClientTls,
    certificates: Option<RenewedCertificates>,
    plugins: PreparedPlugins,
}

impl PreparedReload {
    async fn new(parts: &GatewayParts) -> Result<Self, ReloadError> {
        let report = pintle_config::check(&parts.config, &stock::components());
        let warnings =
            report.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.cause)).collect();
        let written = report.into_settings().map_err(|report| report.to_string())?;
        let needs_restart = parts.at_start.needs_restart(&written).into_iter().map(str::to_owned).collect();
        let settings = written.as_far_as_running(&parts.at_start);
        Ok(Self {
            client_tls: ClientTls::load(&settings.client_tls)?,
            certificates: parts.server_tls.as_deref().map(ServerTls::read_again).transpose()?,
            // Plugins take the longest, so they are loaded last.
            plugins: parts.plugins.prepare(settings.plugins.clone()).await?,
            settings,
            needs_restart,
            warnings,
        })
    }

    /// Puts the configuration into force, and lists the differences from the previous one. Cannot fail.
    fn apply(self, parts: &GatewayParts) -> Reloaded {
        let Self { settings, needs_restart, mut warnings, client_tls, certificates, plugins } = self;
        let before = parts.settings.load_full();
        let mut applied = Vec::new();
        if let Some((tls, certificates)) = parts.server_tls.as_deref().zip(certificates)
            && tls.serve(certificates) == CertificateReload::Reloaded
        {
            applied.push("certificates".to_owned());
        }
        let plugins = parts.plugins.apply(plugins);
        parts.chain.store(Arc::new(Chain::new(parts.plugins.judges())));
        warnings.extend(plugins.missing.iter().map(|problem| format!("not loaded: {problem}")));
        applied.extend(plugin_changes(&plugins));
        if is_reordered(&before.plugins, &settings.plugins) {
            applied.push("the order of the plugins".to_owned());
        }
        if before.inbound.rules != settings.inbound.rules {
            applied.push("rules".to_owned());
        }
        if before.outbound != settings.outbound || before.client_tls != settings.client_tls {
            applied.push("delivery".to_owned());
        }
        parts.rules.replace(settings.inbound.rules.clone());
        parts.outbound.reload(settings.outbound.clone(), client_tls);
        parts.settings.store(Arc::new(settings));
        Reloaded { applied, needs_restart, warnings }
    }
}

/// Whether plugins that are in both configurations are called in another order.
fn is_reordered(before: &pintle_plugin::Config, after: &pintle_plugin::Config) -> bool {
    let names = |config: &pintle_plugin::Config| -> Vec<String> {
        config.plugins.iter().map(|plugin| plugin.name.clone()).collect()
    };
    let (mut before, mut after) = (names(before), names(after));
    let (old, new): (HashSet<_>, HashSet<_>) =
        (before.iter().cloned().collect(), after.iter().cloned().collect());
    before.retain(|name| new.contains(name));
    after.retain(|name| old.contains(name));
    before != after
}

fn plugin_changes(plugins: &AppliedPlugins) -> impl Iterator<Item = String> {
    let kinds = [
        ("added", &plugins.added),
        ("removed", &plugins.removed),
        ("reloaded", &plugins.reloaded),
        ("reconfigured", &plugins.reconfigured),
    ];
    kinds
        .into_iter()
        .flat_map(|(what, names)| names.iter().map(move |name| format!("plugin {name} ({what})")))
}

/// Reloads certificates if their files have changed; called periodically, so that a renewal needs no signal.
pub(crate) fn certificates_if_changed(parts: &GatewayParts) {
    let Some(tls) = &parts.server_tls else { return };
    match tls.reload_if_changed() {
        Ok(CertificateReload::Unchanged) => {}
        Ok(CertificateReload::Reloaded) => tracing::info!("certificates reloaded"),
        Err(error) => tracing::error!(%error, "the old certificates stay in force"),
    }
}
