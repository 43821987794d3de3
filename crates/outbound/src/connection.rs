//! A client connection: a session with a next hop on its socket, driven by reads, writes and one timer.
//!
//! What the machine leaves to its host happens here and nowhere else: bytes, time, and the TLS handshake. Which message
//! goes when is decided by `exchange`; where sessions wait between messages, by `session_pool`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use pintle_mail::Body;
use pintle_record::PeerMembers;
use pintle_smtp::Extension;
use pintle_smtp::client::{Closed, Delivery, DialogueStep, Event, Session, Transfer};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;

use crate::clock::monotonic;
use crate::connect::channel;
use crate::network::Stream;
use crate::plan::Plan;

/// How much of a body is asked of the store at once.
const PIECE: usize = 64 * 1024;
/// Buffers written in one system call.
const SLICES: usize = 16;
/// How long the end of a stream may take.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// A deadline that no session reaches.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// One session and its socket.
pub(crate) struct ClientConnection {
    io: Box<dyn Stream>,
    machine: Session,
    /// How it ended. The machine says so once, and whoever asks later must not wait for more.
    closed: Option<Closed>,
    /// Rings no later than the machine's deadline; set anew only when it would ring too late, or has rung.
    timer: Pin<Box<Sleep>>,
    input: BytesMut,
    peer: PeerMembers,
    /// Messages carried so far.
    used: u32,
    /// A better exchanger could not be reached when it was opened.
    stand_in: bool,
    /// Since when it has had nothing to do.
    pub(crate) idle_since: Instant,
}

/// What came of a set-up.
pub(crate) enum SetUp {
    /// Messages may be sent.
    Ready(Box<ClientConnection>),
    /// The next hop awaits a handshake on this stream; then [`ClientConnection::encrypted`] goes on.
    StartTls(Box<ClientConnection>),
    /// The session is over.
    Closed(Closed),
}

/// What came of a message.
pub(crate) enum Sent {
    /// Each recipient has its outcome.
    Done(Delivery),
    /// The session ended before the message was taken up.
    Closed(Closed),
}

impl ClientConnection {
    pub(crate) fn new(io: Box<dyn Stream>, machine: Session, peer: PeerMembers) -> Box<Self> {
        Box::new(Self {
            io,
            machine,
            closed: None,
            timer: Box::pin(tokio::time::sleep(NEVER)),
            input: BytesMut::new(),
            peer,
            used: 0,
            stand_in: false,
            idle_since: monotonic(),
        })
    }

    /// Who is at the other end, with the number of messages carried before this one.
    pub(crate) fn peer(&self) -> PeerMembers {
        PeerMembers { session_use: self.used.saturating_sub(1), ..self.peer.clone() }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// From now on it speaks for a better exchanger that could not be reached.
    pub(crate) fn stand_in(mut self: Box<Self>) -> Box<Self> {
        self.stand_in = true;
        self
    }

    pub(crate) fn is_stand_in(&self) -> bool {
        self.stand_in
    }

    /// Goes on with greeting, EHLO, STARTTLS and AUTH.
    pub(crate) async fn set_up(mut self: Box<Self>) -> SetUp {
        loop {
            match self.event().await {
                Event::Ready => return SetUp::Ready(self),
                Event::StartTls => return SetUp::StartTls(self),
                Event::Closed(why) => {
                    self.flush().await;
                    return SetUp::Closed(why);
                }
                Event::NeedBody | Event::Done(_) => {}
            }
        }
    }

    /// Gives the stream away for a handshake; what comes back of it goes to [`ClientConnection::encrypted`].
    pub(crate) fn take_stream(&mut self) -> Box<dyn Stream> {
        std::mem::replace(&mut self.io, Box::new(tokio::io::empty()))
    }

    /// The handshake is done.
    pub(crate) fn encrypted(&mut self, io: Box<dyn Stream>, tls: pintle_record::Tls) {
        self.io = io;
        self.machine.tls_started(channel(Some(&tls)), monotonic());
        self.peer.tls = Some(tls);
    }

    /// How long the machine gives the handshake.
    pub(crate) fn time_left(&self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(monotonic());
        self.machine.poll_timeout().map_or(NEVER, left)
    }

    /// The address that it goes to, or the host where that is no address.
    pub(crate) fn place(&self) -> String {
        let address = self.peer.address.map(|address| address.to_string());
        address.or_else(|| self.peer.host.clone()).unwrap_or_default()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.machine.is_closed()
    }

    /// Sends no command ahead of a reply any more.
    pub(crate) fn keep_in_step(&mut self) {
        self.machine.keep_in_step();
    }

    /// Whether the next hop says that commands may be sent ahead.
    pub(crate) fn offers_pipelining(&self) -> bool {
        self.machine.peer().offered.has(Extension::Pipelining)
    }

    /// Sends one message to these recipients of the plan.
    pub(crate) async fn send(&mut self, plan: &Plan, ids: &[u32], transfer: Transfer) -> Sent {
        if let Err(why) = self.become_ready().await {
            return Sent::Closed(why);
        }
        self.machine.set_transfer(transfer);
        if self.machine.send(plan.transaction(ids), monotonic()).is_err() {
            return Sent::Closed(Closed::Lost(DialogueStep::Idle));
        }
        self.used += 1;
        let mut feed = Feed::new(&plan.head, &plan.body);
        loop {
            match self.event().await {
                Event::NeedBody => self.feed(plan, &mut feed).await,
                Event::Done(delivery) => return Sent::Done(delivery),
                // The machine promises Done before Closed; were it to break the promise, nothing would be lost.
                Event::Closed(why) => return Sent::Closed(why),
                Event::Ready | Event::StartTls => {}
            }
        }
    }

    /// After a message, the next one may have to wait for the reply to RSET.
    async fn become_ready(&mut self) -> Result<(), Closed> {
        while !self.machine.is_ready() {
            if let Event::Closed(why) = self.event().await {
                return Err(why);
            }
        }
        Ok(())
    }

    async fn feed(&mut self, plan: &Plan, feed: &mut Feed<'_>) {
        let piece = feed.next().await;
        let now = monotonic();
        match piece {
            Ok(Some(piece)) => self.machine.body(piece, now),
            Ok(None) => self.machine.end_of_body(now),
            Err(error) => {
                tracing::error!(queue_id = %plan.id, %error, "a message cannot be sent");
                self.machine.abandon();
            }
        }
    }

    /// Whether the session can still be used, as far as can be known without asking: a next hop that has closed it, or
    /// says why it is going to, has done so by now.
    pub(crate) fn is_alive(&mut self) -> bool {
        match self.io.read_buf(&mut self.input).now_or_never() {
            None => true,
            Some(Ok(read)) if read > 0 => {
                let bytes = self.input.split();
                self.machine.receive(&bytes, monotonic());
                !matches!(self.poll_event(), Some(Event::Closed(_)))
            }
            Some(_) => false,
        }
    }

    /// Lets the session rest until the next message. None when it is over.
    pub(crate) async fn rest(mut self: Box<Self>) -> Option<Box<Self>> {
        self.flush().await;
        self.idle_since = monotonic();
        while self.poll_event().is_some() {}
        (!self.machine.is_closed()).then_some(self)
    }

    /// Ends the session politely.
    pub(crate) async fn quit(mut self: Box<Self>) {
        if self.become_ready().await.is_ok() {
            self.machine.quit(monotonic());
            while !matches!(self.event().await, Event::Closed(_)) {}
        }
        self.flush().await;
        // The peer may have gone already, or take nothing more, not even the end of an encrypted stream.
        let _ = tokio::time::timeout(LAST_WORDS, self.io.shutdown()).await;
    }

    /// The next event. What is to be written is written only when there is no event left, so that a small message goes
    /// out in one piece.
    async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.poll_event() {
                return event;
            }
            self.flush().await;
            if let Some(event) = self.poll_event() {
                return event;
            }
            if let Some(why) = &self.closed {
                return Event::Closed(why.clone());
            }
            self.read().await;
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.machine.poll_event();
        if let Some(Event::Closed(why)) = &event {
            self.closed = Some(why.clone());
        }
        event
    }

    async fn read(&mut self) {
        self.arm();
        if self.input.capacity() == 0 {
            self.input.reserve(4096);
        }
        tokio::select! {
            biased;
            read = self.io.read_buf(&mut self.input) => match read {
                Ok(1..) => {
                    self.machine.receive(&self.input, monotonic());
                    self.input.clear();
                }
                Ok(0) | Err(_) => self.lost(),
            },
            () = &mut self.timer => self.machine.handle_timeout(monotonic()),
        }
    }

    /// The connection is gone for writing; the next hop's last words may still be there to be read.
    fn lost(&mut self) {
        while let Some(Ok(1..)) = self.io.read_buf(&mut self.input).now_or_never() {
            self.machine.receive(&self.input, monotonic());
            self.input.clear();
        }
        self.machine.connection_lost();
    }

    fn arm(&mut self) {
        let Some(at) = self.machine.poll_timeout() else {
            return;
        };
        let at = tokio::time::Instant::from_std(at);
        if self.timer.is_elapsed() || at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    async fn flush(&mut self) {
        let mut pieces: Vec<Bytes> = Vec::new();
        while let Some(bytes) = self.machine.poll_transmit() {
            pieces.push(bytes);
        }
        if pieces.is_empty() {
            return;
        }
        let limit = self.time_left();
        match tokio::time::timeout(limit, self.write_all(&mut pieces)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.lost(),
            Err(_) => self.machine.handle_timeout(monotonic()),
        }
    }

    /// Writes these pieces. While the next hop takes no more, what it says is heard: it may have seen enough of a message,
    /// and the session may be over before the message is.
    async fn write_all(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < pieces.len() {
            match self.move_on(&pieces[first..]).await? {
                Moved::Written(0) => return Err(io::ErrorKind::WriteZero.into()),
                Moved::Written(mut written) => {
                    while first < pieces.len() && written >= pieces[first].len() {
                        written -= pieces[first].len();
                        first += 1;
                    }
                    if let Some(piece) = pieces.get_mut(first) {
                        piece.advance(written);
                    }
                }
                Moved::Heard if self.hear() => return Ok(()),
                Moved::Heard => {}
            }
        }
        loop {
            match self.move_on(&[]).await? {
                Moved::Heard if !self.hear() => {}
                Moved::Heard | Moved::Written(_) => return Ok(()),
            }
        }
    }

    /// Writes some of these pieces, or pushes out what is written where there are none; reads while neither goes on.
    async fn move_on(&mut self, pieces: &[Bytes]) -> io::Result<Moved> {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let (io, input) = (&mut self.io, &mut self.input);
        std::future::poll_fn(|cx| {
            let written = if slices.is_empty() {
                Pin::new(&mut *io).poll_flush(cx).map_ok(|()| 0)
            } else {
                Pin::new(&mut *io).poll_write_vectored(cx, &slices)
            };
            if let Poll::Ready(written) = written {
                return Poll::Ready(written.map(Moved::Written));
            }
            match std::pin::pin!(io.read_buf(input)).poll(cx) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => read.map_ok(|_| Moved::Heard),
            }
        })
        .await
    }

    /// Takes what was read amid writing. Whether the session is over: then nothing is written any more, since what was
    /// being written has no end.
    fn hear(&mut self) -> bool {
        self.machine.receive(&self.input, monotonic());
        self.input.clear();
        let closed = self.machine.is_closed();
        while closed && self.machine.poll_transmit().is_some() {}
        closed
    }
}

/// What went on at a connection.
enum Moved {
    /// So many octets were written; none where there were none to write.
    Written(usize),
    /// The next hop has said something.
    Heard,
}

/// The message, piece by piece.
struct Feed<'a> {
    head: Option<Bytes>,
    body: &'a Arc<dyn Body>,
    offset: u64,
}

impl<'a> Feed<'a> {
    fn new(head: &Bytes, body: &'a Arc<dyn Body>) -> Self {
        Self { head: Some(head.clone()), body, offset: 0 }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, pintle_mail::BodyError> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if self.offset >= self.body.size() {
            return Ok(None);
        }
        let piece = self.body.read(self.offset, PIECE).await?;
        self.offset += piece.len() as u64;
        if piece.is_empty() {
            return Err(pintle_mail::BodyError("it is shorter than it was".into()));
        }
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use pintle_smtp::client::Config;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;

    /// A peer that has gone for reading, and takes no end of ours: a TLS stream in front of a full socket.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(octets.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_end_keeps_no_session() {
        let machine = Session::new(Config::new("gate.example"), monotonic());
        let link = ClientConnection::new(Box::new(Stuck), machine, PeerMembers::default());
        assert!(tokio::time::timeout(Duration::from_secs(3_600), link.quit()).await.is_ok());
    }

    /// The machine says so once. Whoever asked it again would wait for ever, without letting anybody else run.
    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_over_says_so_as_often_as_it_is_asked() {
        let machine = Session::new(Config::new("gate.example"), monotonic());
        let mut link = ClientConnection::new(Box::new(Stuck), machine, PeerMembers::default());
        let first = link.become_ready().await;
        assert!(first.is_err());
        assert_eq!(link.become_ready().await, first);
        link.quit().await;
    }
}
