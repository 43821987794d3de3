//! Mail that is quarantined, and the reply when a quarantine is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use pintle_inbound::{Quarantines, Reservation, TlsMode};
use pintle_mail::Reply;
use pintle_policy::Hook;
use pintle_record::Record;
use pintle_spool::Spool;

use crate::gate::*;

#[tokio::test]
async fn quarantined_mail_is_kept_and_held() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Rcpt, vec![hold(Hook::Rcpt, &[], "odd")])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (stored, ..) = gate.only().await.unwrap();
    let Some(pintle_spool::HoldReason::Quarantine(quarantine)) = stored.entry.hold else {
        panic!("not held")
    };
    assert_eq!((quarantine.name.as_str(), quarantine.stage.as_deref()), ("odd", Some("rcpt")));
    assert!(quarantine.by.is_some());
    assert_eq!(quarantine.reason.as_deref(), Some("as the test wants"));
}

/// A quarantine with space for one message, which is released.
struct OneRoom {
    free: Arc<AtomicUsize>,
    asked: Mutex<Vec<(String, u64)>>,
}

struct Taken(Arc<AtomicUsize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Quarantines for OneRoom {
    fn room<'a>(&'a self, name: &'a str, size: u64) -> BoxFuture<'a, Result<Reservation, Reply>> {
        let before = self.asked.lock().unwrap().len();
        self.asked.lock().unwrap().push((name.to_owned(), size));
        assert_eq!(self.free.load(Ordering::SeqCst), 1, "the room of the message before has not come back");
        Box::pin(async move {
            if before == 0 {
                self.free.fetch_sub(1, Ordering::SeqCst);
                Ok(Box::new(Taken(Arc::clone(&self.free))) as Reservation)
            } else {
                Err(Reply::plain(452, "no room"))
            }
        })
    }
}

/// The client must retry what a full quarantine refuses: no message is accepted that cannot be stored.
#[tokio::test]
async fn mail_for_a_full_quarantine_is_refused_for_now() {
    let rooms = Arc::new(OneRoom { free: Arc::new(AtomicUsize::new(1)), asked: Mutex::default() });
    let judges = vec![edits(Hook::Message, vec![hold(Hook::Message, &[], "odd")])];
    let gate = gate_with(listener(TlsMode::None), judges, Arc::clone(&rooms) as Arc<dyn Quarantines>);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_data(MESSAGE).await;
    assert!(client.expect(452).await.text().contains("no room"));
    assert_eq!(gate.spool.totals().await.unwrap().messages, 1);
    let asked = rooms.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(
        asked.iter().all(|(name, size)| name == "odd" && *size >= MESSAGE.len() as u64 - 10),
        "{asked:?}"
    );
    let refusal = gate.records.0.lock().unwrap().iter().find_map(|record| match record {
        Record::Rejection(rejection) => Some((rejection.stage.clone(), rejection.by.clone())),
        _ => None,
    });
    assert_eq!(refusal, Some(("message".to_owned(), Some("quota".to_owned()))));
}
