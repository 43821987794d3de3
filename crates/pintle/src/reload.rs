//! Taking over a changed configuration while mail flows: all that can be, or nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_admin::Reloaded;
use pintle_policy::Chain;
use pintle_tls::{CertificateReload, ClientTls, ServerTls};
use tokio::task::JoinHandle;

use crate::app::GatewayParts;
use crate::stock;

type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// What came of the last reload, for whoever asks later how the gateway is.
#[derive(Debug, Default)]
pub(crate) struct LastReload(ArcSwap<ReloadOutcome>);

#[derive(Debug, Default)]
struct ReloadOutcome {
    /// Why what stands in the file is not in force.
    failed: Option<String>,
    /// What of it waits for a restart.
    needs_restart: Vec<String>,
}

impl LastReload {
    /// Whether the file is in force as far as it can be, and what there is to be said of it.
    pub(crate) fn told(&self) -> (bool, Option<String>) {
        let last = self.0.load();
        match (&last.failed, last.needs_restart.as_slice()) {
            (Some(why), _) => {
                (false, Some(format!("the last reload failed, and the file is not in force: {why}")))
            }
            (None, []) => (true, None),
            (None, waits) => (true, Some(format!("changed, and waits for a restart: {}", waits.join(", ")))),
        }
    }

    fn note(&self, outcome: &Result<Reloaded, ReloadError>) {
        let outcome = match outcome {
            Ok(done) => ReloadOutcome { failed: None, needs_restart: done.needs_restart.clone() },
            // What waited before waits still.
            Err(error) => ReloadOutcome {
                failed: Some(in_short(&error.to_string())),
                needs_restart: self.0.load().needs_restart.clone(),
            },
        };
        self.0.store(Arc::new(outcome));
    }
}

/// The first of what is wrong, on one line; the log has all of it.
fn in_short(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    if first.len() == error.trim_end().len() {
        first.to_owned()
    } else {
        format!("{first} (`pintle check` tells all of it)")
    }
}

/// SIGHUP: reads the file again; the log says what came of it. A task of its own, since plugins may take their time, and who
/// waits for other signals must not wait for that.
pub(crate) fn by_signal(live: &Arc<GatewayParts>) -> JoinHandle<()> {
    let live = Arc::clone(live);
    tokio::spawn(async move {
        // Nobody waits for an answer.
        let _ = reload(&live).await;
    })
}

/// Reads the file again and takes over what a running gateway can, and says in the log what came of it. On an error
/// everything stays as it was.
pub(crate) async fn reload(live: &GatewayParts) -> Result<Reloaded, ReloadError> {
    // Two reloads at once would mix their parts.
    let _turn = live.reloading.lock().await;
    let mut stopping = live.stopping.subscribe();
    let outcome = tokio::select! {
        biased;
        // The sender lives as long as what it belongs to.
        _ = stopping.wait_for(|stops| *stops) => Err("the gateway is being stopped".into()),
        outcome = take_over(live) => outcome,
    };
    live.reloaded.note(&outcome);
    match &outcome {
        Ok(done) => {
            tracing::info!(applied = ?done.applied, needs_restart = ?done.needs_restart, "reloaded");
            for what in &done.needs_restart {
                tracing::warn!(what, "changed in the file, and not in force before a restart");
            }
            for warning in &done.warnings {
                tracing::warn!(warning, "configuration");
            }
        }
        Err(error) => tracing::error!(%error, "the old configuration stays in force"),
    }
    outcome
}

async fn take_over(live: &GatewayParts) -> Result<Reloaded, ReloadError> {
    let report = pintle_config::check(&live.config, &stock::components());
    let mut warnings: Vec<String> =
        report.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.cause)).collect();
    let written = report.into_settings().map_err(|report| report.to_string())?;
    let needs_restart = live.at_start.needs_restart(&written).into_iter().map(str::to_owned).collect();
    let settings = written.as_far_as_running(&live.at_start);
    // Everything that can still say no comes first, the plugins last of it; what follows them cannot fail.
    let client_tls = ClientTls::load(&settings.client_tls)?;
    let certificates = live.server_tls.as_deref().map(ServerTls::read_again).transpose()?;
    let missing = live.plugins.reconfigure(settings.plugins.clone()).await?;
    warnings.extend(missing.iter().map(|problem| format!("not loaded: {problem}")));
    if let Some((tls, certificates)) = live.server_tls.as_deref().zip(certificates) {
        tls.serve(certificates);
    }
    live.chain.store(Arc::new(Chain::new(live.plugins.judges())));
    live.rules.replace(settings.inbound.rules.clone());
    live.outbound.reload(settings.outbound.clone(), client_tls);
    live.settings.store(Arc::new(settings));
    let applied = ["certificates", "plugins", "rules", "delivery"].map(str::to_owned).to_vec();
    Ok(Reloaded { applied, needs_restart, warnings })
}

/// Serves renewed certificates without being told.
pub(crate) fn certificates_if_changed(live: &GatewayParts) {
    let Some(tls) = &live.server_tls else { return };
    match tls.reload_if_changed() {
        Ok(CertificateReload::Unchanged) => {}
        Ok(CertificateReload::Reloaded) => tracing::info!("certificates reloaded"),
        Err(error) => tracing::error!(%error, "the old certificates stay in force"),
    }
}
