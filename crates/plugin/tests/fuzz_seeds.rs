//! The seeds of the fuzz target, through its play: what was found once stays found.

#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

mod guest_play;

use std::path::{Path, PathBuf};

use pintle_policy::{Edit, Fate, FaultKind, Ruling, Verdict};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/guest")
}

fn played(name: &str) -> Ruling {
    guest_play::play(&std::fs::read(folder().join(name)).unwrap())
}

#[test]
fn the_seeds_of_a_hostile_guest_hold() {
    let seeds: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 8, "{}", seeds.len());
    for seed in seeds {
        guest_play::play(&std::fs::read(seed).unwrap());
    }
}

/// Or else the other test would show nothing.
#[test]
fn the_guest_does_what_its_program_says() {
    let edits = played("edit_headers").edits;
    assert!(matches!(&edits[..], [Edit::Headers(all)] if all.len() == 5), "{edits:?}");
    for refused in [
        "edit_headers_injection",
        "edit_without_grant",
        "write_body_nul",
        "raw_headers_injection",
        "conditions_elsewhere",
    ] {
        let ruling = played(refused);
        assert_eq!((ruling.edits, ruling.fault), (Vec::new(), None), "{refused}");
    }
    for trapped in ["out_of_memory_string", "huge_list", "bad_utf8", "edit_no_such_case", "realloc_nowhere"] {
        let fault = played(trapped).fault;
        assert!(fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Trap), "{trapped}: {fault:?}");
    }
    assert!(matches!(played("verdict_reject").verdict, Verdict::Reject(Some(reply)) if reply.code == 550));
    let edits = played("quarantine").edits;
    let Some(Edit::Fate { recipients, fate, .. }) = edits.first() else { panic!("{edits:?}") };
    assert!(recipients.is_empty() && matches!(fate, Fate::Quarantine { name, .. } if name == "spam"));
    let edits = played("quarantine_bad_name").edits;
    assert!(
        matches!(&edits[..], [Edit::Fate { fate: Fate::Quarantine { name, reason }, .. }]
            if name == "spam" && reason.len() == 512),
        "only the one with a name; its reason is cut off: {edits:?}"
    );
    let edits = played("raw_headers").edits;
    assert!(matches!(&edits[..], [Edit::Headers(all)] if all.len() == 2), "{edits:?}");
    let edits = played("refuse").edits;
    assert!(
        matches!(&edits[..], [Edit::Fate { fate: Fate::Refuse(reply), .. }] if reply.code == 550),
        "{edits:?}"
    );
    assert_eq!(played("look_at_all").fault, None);
    assert_eq!(played("look_at_all_without_grants").fault, None);
}
