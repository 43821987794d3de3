//! One policy in five languages, as components that were built once for each version of the contract
//! (`tests/components`): they load, configure, judge and misbehave alike.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use pintle_mail::{Bytes, HeaderBlock};
use pintle_plugin::{
    ComponentSource, Config, GrantKind, LoadError, PluginConfig, PluginLimits, Plugins, check,
};
use pintle_policy::{Call, Chain, Decision, Fate, Message, Verdict, View};
use serde_json::{Value, json};

use crate::support::{Zone, transaction};

const VERSIONS: [&str; 1] = ["0.1.0"];

fn component(version: &str, language: &str) -> Bytes {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/components").join(version);
    let packed = std::fs::File::open(folder.join(format!("{language}.wasm.gz"))).unwrap();
    let mut octets = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut octets).unwrap();
    octets.into()
}

fn partners(language: &str, bytes: &Bytes, settings: Value) -> PluginConfig {
    let source = ComponentSource::Bytes { name: language.to_owned(), bytes: bytes.clone() };
    let mut config = PluginConfig::new(language, source);
    config.settings = settings;
    config.grants = [GrantKind::EditHeaders].into();
    config.limits = PluginLimits {
        wall: Duration::from_secs(60),
        cpu: Duration::from_secs(30),
        start: Duration::from_secs(60),
        memory: 128 << 20,
        max_instances: 1,
        ..PluginLimits::default()
    };
    config
}

/// A message with this subject, and one part with this text in base64, to these recipients.
fn mail(subject: &str, text: &str, recipients: &[&str]) -> View {
    let header =
        format!("Subject: {subject}\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n");
    let body: Arc<dyn pintle_mail::Body> = Arc::new(Bytes::from(format!("{}\r\n", base64(text))));
    let mut view = transaction(recipients);
    view.message = Some(Arc::new(Message::new(HeaderBlock::parse(header.into()), Some(body))));
    view
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |group: u32, place: u32| char::from(LETTERS[(group >> (18 - 6 * place) & 63) as usize]);
    let encoded = text.as_bytes().chunks(3).map(|three| {
        let group =
            three.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet)) << (8 * (3 - three.len()));
        let kept = u32::try_from(three.len()).unwrap() + 1;
        let letters: String = (0..kept).map(|place| letter(group, place)).collect();
        format!("{letters:=<4}")
    });
    encoded.collect()
}

/// What one component does with one session: everything that a later version of the host must not change.
async fn play(plugins: &Plugins, name: &str) -> Vec<String> {
    let chain = Chain::new(plugins.judges());
    let mut told = Vec::new();
    let mut note = |what: &str, decision: &Decision, view: &View| {
        let transaction = view.transaction.as_ref().unwrap();
        let fates = transaction.envelope.recipients.iter().map(|recipient| {
            let groups: Vec<_> = recipient.groups.values().cloned().collect();
            let fate = transaction.fates.of(recipient.id).map(|requested| match &requested.fate {
                Fate::Refuse(reply) => format!("refuse {reply}"),
                Fate::Quarantine { name, reason } => format!("quarantine {name} {reason}"),
                Fate::Discard => "discard".to_owned(),
            });
            format!("{}{groups:?}{fate:?}", recipient.address.local())
        });
        let fates: Vec<_> = fates.collect();
        let header = view
            .message
            .as_ref()
            .map(|message| message.header.named("X-Partners").map(|field| field.value()).collect::<Vec<_>>());
        let fact = transaction.facts.get(&format!("{name}.seen"));
        let fault = decision.steps.first().and_then(|step| step.fault.as_ref());
        assert_eq!(fault, None, "{name}: {what}");
        let verdict = match &decision.verdict {
            Verdict::Reject(Some(reply)) | Verdict::Defer(Some(reply)) => reply.to_string(),
            verdict => verdict.name().to_owned(),
        };
        told.push(format!("{what}: {verdict} {fates:?} {header:?} {fact:?} {}", transaction.score()));
    };
    for recipient in ["blocked", "busy", "anybody"] {
        let mut view = transaction(&[recipient]);
        let decision = chain.judge(&Call::Rcpt(0), &mut view).await;
        note(recipient, &decision, &view);
    }
    for (what, subject, text) in [
        ("plain", "good morning", "hello"),
        ("offer", "=?utf-8?q?An_Off=65r?=", "hello"),
        ("held", "hold me", "hello"),
        ("virus", "good morning", "a virus-test-string inside"),
    ] {
        let mut view = mail(subject, text, &["bob", "picky"]);
        let decision = chain.judge(&Call::Message, &mut view).await;
        note(what, &decision, &view);
    }
    let mut known = mail("hold me", "hello", &["bob"]);
    Arc::make_mut(&mut known.session).trusted = true;
    let decision = chain.judge(&Call::Message, &mut known).await;
    assert!(decision.steps.is_empty(), "{name}: its condition keeps it from being called for known clients");
    told
}

/// Loads the component of a language, plays with it, and compares what it did with what the one in C does.
async fn says_the_same_as_c(language: &str) {
    for version in VERSIONS {
        assert_eq!(told(version, language).await, told(version, "c").await, "{language} differs from C");
    }
}

async fn told(version: &str, language: &str) -> Vec<String> {
    let cache = tempfile::tempdir().unwrap();
    let bytes = component(version, language);
    let config = |settings| Config {
        plugins: vec![partners(language, &bytes, settings)],
        // The component is compiled once, which takes seconds for those with a language's runtime.
        cache: Some(cache.path().join("cache")),
        ..Config::default()
    };
    let plugins =
        Plugins::open(config(json!({"quiet": ["Example.org"], "limit": 3})), Arc::new(Zone)).await.unwrap();
    let told = play(&plugins, language).await;
    plugins.shutdown().await;
    let report = check(config(json!({"limit": 0, "loud": true}))).await.unwrap().remove(0);
    let [LoadError::Config(mistakes)] = &report.errors[..] else { panic!("{language}: {:?}", report.errors) };
    let at: Vec<_> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(at, ["/limit", "/loud"], "{language}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_c_does_what_its_page_says() {
    for version in VERSIONS {
        let told = told(version, "c").await;
        let has = |what: &str, part: &str| {
            let line = told.iter().find(|line| line.starts_with(what)).unwrap();
            assert!(line.contains(part), "{line} lacks {part}");
        };
        has("blocked", "550 5.7.1 No mail to blocked");
        has("busy", "451 4.7.1");
        has("anybody", "quiet");
        has("offer", "refuse 550 5.7.1 picky takes no mail of this kind");
        has("offer", " 1.5");
        has("plain", "=?utf-8?");
        has("held", "quarantine policy the subject asks for it");
        has("virus", "554 5.7.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_rust_says_the_same() {
    says_the_same_as_c("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_go_says_the_same() {
    says_the_same_as_c("go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_javascript_says_the_same() {
    says_the_same_as_c("javascript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_in_python_says_the_same() {
    says_the_same_as_c("python").await;
}
