//! Properties of the server session that hold whatever client and host do: the guarantees that `server_play` checks,
//! one final reply to each command (and to each recipient, where the client requests that), and the same outcome
//! however the input is split.

#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

mod server_play;

use std::hash::{DefaultHasher, Hash, Hasher};

use pintle_smtp::server::Question;
use proptest::collection::vec;
use proptest::prelude::*;
use server_play::{Host, LINES, play, replies};

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_promise(plan in vec(any::<u8>(), 0..400)) {
        play(&plan);
    }

    #[test]
    fn no_likely_plan_breaks_a_promise(setting: u8, steps in vec((0..LINES.len(), 6_u8..24), 0..60)) {
        // Lines in any order, with nearly all questions answered well: such plans reach messages.
        let mut plan = vec![setting, 9, 23];
        for (line, whim) in steps {
            plan.extend([0, u8::try_from(line).unwrap(), 9, whim, 15, 1]);
        }
        play(&plan);
    }

    #[test]
    fn each_command_has_one_final_reply(setting: u8, whims in vec(any::<u8>(), 32), steps in vec(0..COMMANDS.len(), 1..40)) {
        let mut whims = whims.into_iter().cycle();
        let mut host = Host::new(setting & !1);
        settle(&mut host, &mut whims);
        assert_eq!(said(&mut host).len(), 1, "the greeting");
        for step in steps {
            if host.closed.is_some() {
                break;
            }
            converse(&mut host, COMMANDS[step], &mut whims);
        }
    }

    #[test]
    fn each_accepted_recipient_has_its_reply(
        accepts in vec(any::<bool>(), 1..4), refused in 0_u8..3, chunks: bool, dropped: bool,
    ) {
        let mut host = Host::new(0);
        host.answer(YES);
        for line in ["EHLO client.example\r\n", "MAIL FROM:<a@client.example> PRDR\r\n"] {
            host.feed(line.as_bytes());
            host.answer(YES);
        }
        for accept in &accepts {
            host.feed(b"RCPT TO:<b@mx.example>\r\n");
            host.answer(if *accept { YES } else { 0 });
        }
        let message: &[&[u8]] = if chunks { &[b"BDAT 0 LAST\r\n"] } else { &[b"DATA\r\n", b".\r\n"] };
        message.iter().for_each(|bytes| host.feed(bytes));
        host.answer(YES);
        let asked = matches!(host.question, Some(Question::Message(_)));
        prop_assert_eq!(asked, accepts.contains(&true));
        // The host checks the replies against its answer.
        host.answer(6 + u8::from(dropped) + 24 * refused);
        prop_assert!(host.question.is_none());
    }

    #[test]
    fn cuts_do_not_matter(
        setting: u8,
        steps in vec(0..LINES.len(), 0..30),
        noise in vec(any::<u8>(), 0..20),
        at in any::<prop::sample::Index>(),
        whim: u64,
        cuts in vec(1_usize..20, 1..40),
    ) {
        let mut lines: Vec<&[u8]> = vec![LINES[0].as_bytes()];
        lines.extend(steps.iter().map(|step| LINES[*step].as_bytes()));
        lines.insert(at.index(lines.len() + 1), &noise);
        let stream = lines.concat();
        // STARTTLS is omitted: what follows it in the same read is discarded, as it must be.
        let outcome = |pieces: Vec<&[u8]>| {
            let mut host = Host::new(setting & !1);
            decide(&mut host, whim);
            for piece in pieces {
                host.feed(piece);
                decide(&mut host, whim);
            }
            (String::from_utf8(host.sent).unwrap(), host.story)
        };
        let whole = outcome(vec![&stream]);
        assert_eq!(outcome(stream.chunks(1).collect()), whole);
        assert_eq!(outcome(cut(&stream, &cuts)), whole);
    }
}

/// The whim with which a host accepts whatever it is asked.
const YES: u8 = 23;

/// Complete commands, including a chunk with its octets.
const COMMANDS: [&str; 20] = [
    "EHLO client.example\r\n",
    "EHLO client.example\r\n",
    "HELO client.example\r\n",
    "MAIL FROM:<a@client.example>\r\n",
    "MAIL FROM:<a@client.example>\r\n",
    "MAIL FROM:<> SIZE=10000\r\n",
    "MAIL FROM:<a@client.example> PRDR\r\n",
    "RCPT TO:<b@mx.example>\r\n",
    "RCPT TO:<b@mx.example>\r\n",
    "RCPT TO:nonsense\r\n",
    "DATA\r\n",
    "DATA\r\n",
    "BDAT 10\r\nA: 1\r\n\r\nxy",
    "BDAT 0 LAST\r\n",
    "BDAT 3 LAST\r\n\0\r\n",
    "AUTH PLAIN AGEAYg==\r\n",
    "AUTH LOGIN\r\n",
    "RSET\r\n",
    "NONSENSE \u{e4}\r\n",
    "GET / HTTP/1.1\r\n",
];

/// Sends one command with all that belongs to it, and counts the replies.
fn converse(host: &mut Host, command: &str, whims: &mut impl Iterator<Item = u8>) {
    let mut codes = exchange(host, command, whims);
    for continuation in ["YQ==\r\n", "Yg==\r\n"] {
        if codes == [334] {
            codes = exchange(host, continuation, whims);
        }
    }
    if codes == [354] {
        codes = exchange(host, "Subject: x\r\n\r\nhello\r\n.\r\n", whims);
    }
    if codes[0] == 353 {
        // Of three recipients at most; that the codes fit the answer is checked by `server_play`.
        assert!((4..=5).contains(&codes.len()) && codes[codes.len() - 1] == 250, "{command:?}: {codes:?}");
        return;
    }
    assert_eq!(codes.len(), 1, "{command:?}: {codes:?}");
    assert!(codes[0] / 100 != 3, "{command:?}: {codes:?}");
}

fn exchange(host: &mut Host, text: &str, whims: &mut impl Iterator<Item = u8>) -> Vec<u16> {
    host.feed(text.as_bytes());
    settle(host, whims);
    said(host)
}

/// Answers all open questions.
fn settle(host: &mut Host, whims: &mut impl Iterator<Item = u8>) {
    while host.question.is_some() {
        host.answer(whims.next().unwrap());
    }
}

/// Answers all open questions, the same question always in the same way, and headers with yes: whether the host is
/// asked about a header before its message turns out to be unacceptable depends on how the input is split.
fn decide(host: &mut Host, whim: u64) {
    while let Some(question) = &host.question {
        let mut hasher = DefaultHasher::new();
        (whim, format!("{question:?}")).hash(&mut hasher);
        let chosen = u8::try_from(hasher.finish() % 24).unwrap();
        let always = matches!(question, Question::Headers(_) | Question::Connect);
        host.answer(if always { YES } else { chosen });
    }
}

/// Returns the codes of the replies since the last call.
fn said(host: &mut Host) -> Vec<u16> {
    replies(&String::from_utf8(std::mem::take(&mut host.sent)).unwrap())
}

fn cut<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for len in cuts.iter().cycle() {
        if stream.is_empty() {
            break;
        }
        let (piece, rest) = stream.split_at((*len).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}
