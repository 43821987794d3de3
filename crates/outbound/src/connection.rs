//! A client connection: a session with a next hop on its socket, driven by reads, writes and one timer.
//!
//! All I/O of the protocol machine happens here: bytes, time, and the change to TLS. `exchange` decides which message
//! goes when, and `session_pool` keeps sessions between messages.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use pintle_mail::Body;
use pintle_record::{PeerMembers, Tls};
use pintle_smtp::Extension;
use pintle_smtp::client::{Channel, Closed, Delivery, DialogueStep, Event, Session, Transfer};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Sleep;

use crate::clock::monotonic;
use crate::network::Stream;
use crate::plan::DeliveryPlan;

/// Octets of a body that are read from the store at once.
const CHUNK: usize = 64 * 1024;
/// Buffers written in one system call.
const SLICES: usize = 16;
/// How long the shutdown of a stream may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// A deadline later than any of the machine's.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// One session and its socket.
pub(crate) struct ClientConnection {
    io: Box<dyn Stream>,
    machine: Session,
    /// How the session ended. The machine reports it once, and a later call must not wait for another event.
    closed: Option<Closed>,
    /// Elapses no later than the machine's deadline; reset only when it would elapse too late, or has elapsed.
    timer: Pin<Box<Sleep>>,
    input: BytesMut,
    peer: PeerMembers,
    /// The number of messages sent over it so far.
    used: u32,
    /// Whether a better exchanger could not be reached when it was opened.
    stand_in: bool,
    /// Since when it has been idle.
    pub(crate) idle_since: Instant,
}

/// The result of setting a session up: greeting, EHLO, STARTTLS and AUTH.
pub(crate) enum SetUp {
    /// Messages may be sent.
    Ready(Box<ClientConnection>),
    /// The next hop waits for a TLS handshake on this stream; [`ClientConnection::encrypted`] continues after it.
    StartTls(Box<ClientConnection>),
    /// The session is over.
    Closed(Closed),
}

/// The result of sending a message.
pub(crate) enum SendResult {
    /// Each recipient has its outcome.
    Done(Delivery),
    /// The session ended before the transaction began.
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

    /// The host at the other end, with the number of messages sent before this one.
    pub(crate) fn peer(&self) -> PeerMembers {
        PeerMembers { session_use: self.used.saturating_sub(1), ..self.peer.clone() }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Marks it as a session with a lower-priority exchanger, since a better one could not be reached.
    pub(crate) fn stand_in(mut self: Box<Self>) -> Box<Self> {
        self.stand_in = true;
        self
    }

    pub(crate) fn is_stand_in(&self) -> bool {
        self.stand_in
    }

    /// Runs greeting, EHLO and AUTH, up to STARTTLS or to the end.
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

    /// Takes the stream out for a TLS handshake; the encrypted one goes to [`ClientConnection::encrypted`].
    pub(crate) fn take_stream(&mut self) -> Box<dyn Stream> {
        std::mem::replace(&mut self.io, Box::new(tokio::io::empty()))
    }

    /// Continues over the encrypted stream after the handshake.
    pub(crate) fn encrypted(&mut self, io: Box<dyn Stream>, tls: Tls) {
        self.io = io;
        self.machine.tls_started(channel(Some(&tls)), monotonic());
        self.peer.tls = Some(tls);
    }

    /// The time until the machine's deadline, which limits the handshake.
    pub(crate) fn time_left(&self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(monotonic());
        self.machine.poll_timeout().map_or(NEVER, left)
    }

    /// The address at the other end, or the host where there is no IP address. A key of `host_defects`.
    pub(crate) fn place(&self) -> String {
        let address = self.peer.address.map(|address| address.to_string());
        address.or_else(|| self.peer.host.clone()).unwrap_or_default()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.machine.is_closed()
    }

    /// Disables pipelining: from now on each command waits for the reply to the last one.
    pub(crate) fn disable_pipelining(&mut self) {
        self.machine.keep_in_step();
    }

    /// Whether the next hop offers PIPELINING.
    pub(crate) fn offers_pipelining(&self) -> bool {
        self.machine.peer().offered.has(Extension::Pipelining)
    }

    /// Sends one message to these recipients of the plan.
    pub(crate) async fn send(&mut self, plan: &DeliveryPlan, ids: &[u32], transfer: Transfer) -> SendResult {
        if let Err(why) = self.become_ready().await {
            return SendResult::Closed(why);
        }
        self.machine.set_transfer(transfer);
        if self.machine.send(plan.transaction(ids), monotonic()).is_err() {
            return SendResult::Closed(Closed::Lost(DialogueStep::Idle));
        }
        self.used += 1;
        let mut chunks = MessageChunks::new(&plan.head, &plan.body);
        loop {
            match self.event().await {
                Event::NeedBody => self.send_chunk(plan, &mut chunks).await,
                Event::Done(delivery) => return SendResult::Done(delivery),
                // The machine promises Done before Closed. If it breaks the promise, nothing is lost.
                Event::Closed(why) => return SendResult::Closed(why),
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

    async fn send_chunk(&mut self, plan: &DeliveryPlan, chunks: &mut MessageChunks<'_>) {
        let piece = chunks.next().await;
        let now = monotonic();
        match piece {
            Ok(Some(piece)) => self.machine.body(piece, now),
            Ok(None) => self.machine.end_of_body(now),
            Err(error) => {
                tracing::error!(queue_id = %plan.id, %error, "the body of a message cannot be read; the session is broken off");
                self.machine.abandon();
            }
        }
    }

    /// Whether the session can still be used, without sending anything: the next hop has not closed it, and has not
    /// said that it will (421).
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

    /// Makes the session idle until the next message. None if it is over.
    pub(crate) async fn into_idle(mut self: Box<Self>) -> Option<Box<Self>> {
        self.flush().await;
        self.idle_since = monotonic();
        while self.poll_event().is_some() {}
        (!self.machine.is_closed()).then_some(self)
    }

    /// Ends the session with QUIT.
    pub(crate) async fn quit(mut self: Box<Self>) {
        if self.become_ready().await.is_ok() {
            self.machine.quit(monotonic());
            while !matches!(self.event().await, Event::Closed(_)) {}
        }
        self.flush().await;
        // The peer may have gone already, or may read no more, not even the end of a TLS stream.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.io.shutdown()).await;
    }

    /// The next event. Output is written only when no event is left, so that a small message goes out in one piece.
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
        self.set_timer();
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

    /// The connection takes no more output. The next hop's last reply may still be there to be read.
    fn lost(&mut self) {
        while let Some(Ok(1..)) = self.io.read_buf(&mut self.input).now_or_never() {
            self.machine.receive(&self.input, monotonic());
            self.input.clear();
        }
        self.machine.connection_lost();
    }

    fn set_timer(&mut self) {
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

    /// Writes these pieces. While the next hop reads no more of them, its replies are read: it may refuse a message, or
    /// close the session, before the end of the message.
    async fn write_all(&mut self, pieces: &mut [Bytes]) -> io::Result<()> {
        let mut first = 0;
        while first < pieces.len() {
            match self.write_or_read(&pieces[first..]).await? {
                IoProgress::Written(0) => return Err(io::ErrorKind::WriteZero.into()),
                IoProgress::Written(mut written) => {
                    while first < pieces.len() && written >= pieces[first].len() {
                        written -= pieces[first].len();
                        first += 1;
                    }
                    if let Some(piece) = pieces.get_mut(first) {
                        piece.advance(written);
                    }
                }
                IoProgress::Received if self.take_input() => return Ok(()),
                IoProgress::Received => {}
            }
        }
        loop {
            match self.write_or_read(&[]).await? {
                IoProgress::Received if !self.take_input() => {}
                IoProgress::Received | IoProgress::Written(_) => return Ok(()),
            }
        }
    }

    /// Writes some of these pieces, or flushes where there are none; reads while neither makes progress.
    async fn write_or_read(&mut self, pieces: &[Bytes]) -> io::Result<IoProgress> {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let (io, input) = (&mut self.io, &mut self.input);
        std::future::poll_fn(|cx| {
            let written = if slices.is_empty() {
                Pin::new(&mut *io).poll_flush(cx).map_ok(|()| 0)
            } else {
                Pin::new(&mut *io).poll_write_vectored(cx, &slices)
            };
            if let Poll::Ready(written) = written {
                return Poll::Ready(written.map(IoProgress::Written));
            }
            match std::pin::pin!(io.read_buf(input)).poll(cx) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => read.map_ok(|_| IoProgress::Received),
            }
        })
        .await
    }

    /// Passes on what was read while writing. Returns whether the session is over: then nothing more is written, since
    /// the pieces are cut off.
    fn take_input(&mut self) -> bool {
        self.machine.receive(&self.input, monotonic());
        self.input.clear();
        let closed = self.machine.is_closed();
        while closed && self.machine.poll_transmit().is_some() {}
        closed
    }
}

/// One step of I/O on a connection.
enum IoProgress {
    /// This many octets were written; none where there were none to write.
    Written(usize),
    /// Octets were read into the buffer of the connection.
    Received,
}

/// A message in chunks: its header block, then pieces of its body.
struct MessageChunks<'a> {
    head: Option<Bytes>,
    body: &'a Arc<dyn Body>,
    offset: u64,
}

impl<'a> MessageChunks<'a> {
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
        let piece = self.body.read(self.offset, CHUNK).await?;
        self.offset += piece.len() as u64;
        if piece.is_empty() {
            return Err(pintle_mail::BodyError("the body is shorter than its recorded size".into()));
        }
        Ok(Some(piece))
    }
}

/// The kind of channel that a session runs over, as far as its machine has to know.
pub(crate) fn channel(tls: Option<&Tls>) -> Channel {
    match tls {
        None => Channel::Plain,
        Some(tls) if tls.verified => Channel::VerifiedTls,
        Some(_) => Channel::Tls,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use pintle_smtp::client::Config;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;

    /// A peer that reads no more and never finishes the shutdown: a TLS stream in front of a full socket.
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
        let connection = ClientConnection::new(Box::new(Stuck), machine, PeerMembers::default());
        assert!(tokio::time::timeout(Duration::from_secs(3_600), connection.quit()).await.is_ok());
    }

    /// The machine reports the end once. Polling it again would loop forever and block other tasks.
    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_over_says_so_as_often_as_it_is_asked() {
        let machine = Session::new(Config::new("gate.example"), monotonic());
        let mut connection = ClientConnection::new(Box::new(Stuck), machine, PeerMembers::default());
        let first = connection.become_ready().await;
        assert!(first.is_err());
        assert_eq!(connection.become_ready().await, first);
        connection.quit().await;
    }
}
