//! One connection: moves bytes between the socket and the SMTP session, and passes the session's events to the
//! pipeline.
//!
//! The loop is always the same: process events, send output, wait for input, the deadline or a drain. An idle session
//! owns no buffer: reads use a buffer that belongs to the thread, and the session keeps only what it needs.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pintle_smtp::server::{Closed, Event, HostAnswer, Session, Start};
use pintle_spool::Receipt;
use pintle_tls::ServerTls;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::client_log;
use crate::config::{ListenerConfig, TlsMode};
use crate::phase::ServerPhase;
use crate::pipeline::Pipeline;
use crate::services::Services;
use crate::strangers::{Lifetime, SessionEnd};
use crate::stream::ClientStream;

/// The largest read, in octets.
const READ: usize = 64 * 1024;
/// How long a client may leave our replies unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// What a listener serves its connections with.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) services: Arc<Services>,
    pub(crate) listener: Arc<ListenerConfig>,
    /// The certificates, if the listener offers TLS.
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) phase: watch::Receiver<ServerPhase>,
}

/// Serves one client until the connection ends.
pub(crate) async fn serve(serving: Serving, stream: TcpStream, client: SocketAddr) {
    // Replies are small and the client waits for each: Nagle's algorithm would delay every second one.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let pipeline = Pipeline::new(Arc::clone(&serving.services), &serving.listener, client, local);
    let session = pipeline.session();
    let mut connection = match Connection::open(serving, stream, pipeline).await {
        Ok(connection) => connection,
        Err(error) => return client_log::handshake_failed(&session, &error),
    };
    drop(session);
    tracing::debug!(session = %connection.pipeline.id(), %client, "session begins");
    let end = connection.run().await;
    if let Err(error) = end {
        tracing::debug!(session = %connection.pipeline.id(), %error, "connection lost");
    }
    connection.pipeline.end().await;
}

struct Connection {
    serving: Serving,
    stream: ClientStream,
    session: Session<Receipt>,
    pipeline: Pipeline,
    lifetime: Lifetime,
    timer: Timer,
}

/// Why a wait ended.
enum Woken {
    Read(usize),
    Timer,
    Phase(ServerPhase),
}

impl Connection {
    async fn open(mut serving: Serving, stream: TcpStream, mut pipeline: Pipeline) -> io::Result<Self> {
        let listener = Arc::clone(&serving.listener);
        let message = listener.smtp.timeouts.message;
        let lifetime = Lifetime::new(&listener.strangers, message, Instant::now());
        let implicit = listener.tls == TlsMode::Implicit;
        let stream = if implicit {
            handshake(&mut serving, stream, &mut pipeline).await?
        } else {
            ClientStream::Plain(stream)
        };
        let start = Start { session_id: Some(pipeline.id().to_string()), tls: implicit, identity: None };
        let session = Session::new(Arc::clone(&listener.smtp), start, Instant::now());
        Ok(Self { serving, stream, session, pipeline, lifetime, timer: Timer::default() })
    }

    async fn run(&mut self) -> io::Result<()> {
        loop {
            let over = self.work().await?;
            self.flush().await?;
            if let Some(closed) = over {
                tracing::debug!(session = %self.pipeline.id(), ?closed, "session ends");
                return self.close().await;
            }
            self.pipeline.tell_queued().await;
            match self.wait().await? {
                Woken::Read(0) => self.session.peer_closed(Instant::now()),
                Woken::Read(_) => {}
                Woken::Timer => self.tick(Instant::now()),
                Woken::Phase(ServerPhase::Running) => {}
                Woken::Phase(ServerPhase::Draining) => self.session.shutdown(Instant::now()),
                Woken::Phase(ServerPhase::Aborting) => self.session.abort(Instant::now()),
            }
        }
    }

    /// Processes all events. Returns why the session ended, once it has.
    async fn work(&mut self) -> io::Result<Option<Closed>> {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Ask(question) => {
                    let decision = self.pipeline.answer(question);
                    let answer = answer(&mut self.session, &mut self.stream, decision).await?;
                    self.session.answer(answer, Instant::now());
                    self.close_if_requested();
                }
                Event::Body(chunk) => self.pipeline.body(chunk).await,
                Event::StartTls => self.start_tls().await?,
                Event::Reset => {
                    self.pipeline.reset();
                    self.close_if_requested();
                }
                Event::Fault(fault) => client_log::fault(&self.pipeline.session(), &fault),
                Event::Closed(closed) => return Ok(Some(closed)),
            }
        }
        Ok(None)
    }

    /// Ends the session if a plugin has requested that.
    fn close_if_requested(&mut self) {
        if let Some(reply) = self.pipeline.closing() {
            self.session.dismiss(reply, Instant::now());
        }
    }

    /// Handles a deadline that has passed: of the protocol, or of an untrusted client's session.
    fn tick(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        if !self.pipeline.is_stranger() {
            return;
        }
        let Some(end) = self.lifetime.due(now) else { return };
        let (SessionEnd::Soon(reply) | SessionEnd::Now(reply)) = &end;
        client_log::dismissed(&self.pipeline.session(), reply);
        match end {
            SessionEnd::Soon(reply) => self.session.retire(reply, now),
            SessionEnd::Now(reply) => self.session.dismiss(reply, now),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.session, &mut self.stream).await
    }

    async fn wait(&mut self) -> io::Result<Woken> {
        let Self { session, stream, serving: Serving { phase, .. }, timer, pipeline, lifetime } = self;
        // The reads of a client that sends without a pause are always ready, and they come first because they nearly
        // always are what happens next. Without this check the clock and a drain would never get a turn.
        if phase.has_changed().unwrap_or(true) {
            return Ok(Woken::Phase(latest(phase)));
        }
        let end = pipeline.is_stranger().then(|| lifetime.next());
        let deadline = [session.poll_timeout(), end].into_iter().flatten().min();
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(Woken::Timer);
        }
        timer.arm(deadline);
        tokio::select! {
            biased;
            read = read(session, stream) => read.map(Woken::Read),
            () = timer.fired() => Ok(Woken::Timer),
            _ = phase.changed() => Ok(Woken::Phase(latest(phase))),
        }
    }

    async fn start_tls(&mut self) -> io::Result<()> {
        self.flush().await?;
        let plain = match std::mem::replace(&mut self.stream, ClientStream::Closed) {
            ClientStream::Plain(plain) => plain,
            // The session offers STARTTLS only without TLS.
            ClientStream::Tls(_) | ClientStream::Closed => {
                return Err(io::Error::other("STARTTLS on a session with TLS"));
            }
        };
        match handshake(&mut self.serving, plain, &mut self.pipeline).await {
            Ok(stream) => {
                self.stream = stream;
                self.session.tls_started(Instant::now());
                Ok(())
            }
            Err(error) => {
                self.session.tls_failed(Instant::now());
                client_log::handshake_failed(&self.pipeline.session(), &error);
                Err(error)
            }
        }
    }

    /// Shuts down the sending direction too, so that the last reply is not lost to a TCP reset.
    async fn close(&mut self) -> io::Result<()> {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.stream.shutdown()).await;
        Ok(())
    }
}

/// Returns the current phase. A dropped sender means that the gateway is shutting down.
fn latest(phase: &mut watch::Receiver<ServerPhase>) -> ServerPhase {
    if phase.has_changed().is_ok() { *phase.borrow_and_update() } else { ServerPhase::Aborting }
}

/// Waits for the pipeline's answer. If it takes more than a moment, replies that are ready are sent meanwhile.
///
/// Both run concurrently: a client that does not read its replies must not block a plugin instance, or a message on its
/// way to the disk. A decision that was begun is completed even if the client is gone, so that whatever became durable
/// is recorded.
async fn answer(
    session: &mut Session<Receipt>,
    stream: &mut ClientStream,
    decision: impl Future<Output = HostAnswer<Receipt>>,
) -> io::Result<HostAnswer<Receipt>> {
    let mut decision = pin!(decision);
    let at_once = poll_fn(|cx| match decision.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    });
    if let Some(answer) = at_once.await {
        return Ok(answer);
    }
    let (flushed, answer) = tokio::join!(flush(session, stream), decision);
    flushed?;
    Ok(answer)
}

async fn flush(session: &mut Session<Receipt>, stream: &mut ClientStream) -> io::Result<()> {
    while let Some(bytes) = session.poll_transmit() {
        let write = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write).await??;
    }
    Ok(())
}

/// Reads into the thread's buffer and passes the bytes to the session. Returns how many octets were read. Stays pending
/// while the session wants none.
async fn read(session: &mut Session<Receipt>, stream: &mut ClientStream) -> io::Result<usize> {
    poll_fn(|cx| {
        if !session.wants_read() {
            return Poll::Pending;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {
                    if !buffer.filled().is_empty() {
                        session.receive(buffer.filled(), Instant::now());
                    }
                    Poll::Ready(Ok(buffer.filled().len()))
                }
                other => other.map_ok(|()| 0),
            }
        })
    })
    .await
}

async fn handshake(
    serving: &mut Serving,
    stream: TcpStream,
    pipeline: &mut Pipeline,
) -> io::Result<ClientStream> {
    let tls = serving.tls.as_ref().ok_or_else(|| io::Error::other("no certificate"))?;
    let accept = tokio::time::timeout(serving.listener.handshake_timeout, tls.accept(stream));
    let accepted = tokio::select! {
        accepted = accept => accepted.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the client did not get on with it in time")
        })?,
        // No message is being received during a handshake, so a drain does not wait for it.
        _ = serving.phase.wait_for(|phase| *phase != ServerPhase::Running) => {
            return Err(io::Error::other("the gateway is going down"));
        }
    };
    let (stream, facts) = accepted.map_err(io::Error::other)?;
    pipeline.encrypted(facts);
    Ok(ClientStream::Tls(Box::new(stream)))
}

/// A deadline that mostly moves into the future. The timer is reset only when it has fired or must fire earlier,
/// because setting one takes a lock that all sessions share.
#[derive(Default)]
struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn arm(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
        let Some(deadline) = deadline else { return };
        match &mut self.sleep {
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline.into()))),
            Some(sleep) if sleep.deadline().into_std() > deadline => sleep.as_mut().reset(deadline.into()),
            Some(_) => {}
        }
    }

    async fn fired(&mut self) {
        let (Some(deadline), Some(sleep)) = (self.deadline, &mut self.sleep) else {
            return std::future::pending().await;
        };
        sleep.as_mut().await;
        while sleep.deadline().into_std() < deadline {
            sleep.as_mut().reset(deadline.into());
            sleep.as_mut().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_smtp::server::{Config, Question};
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;

    /// Returns our end of a connection that accepts no more octets, and the other end, which reads none.
    async fn stuffed() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (theirs, _)) = (ours.unwrap(), theirs.unwrap());
        // For a while, the kernel accepts octets into its buffers on either side.
        while tokio::time::timeout(Duration::from_millis(100), ours.writable()).await.is_ok() {
            while ours.try_write(&[b'x'; 64 * 1024]).is_ok() {}
        }
        (ours, theirs)
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_holds_up_no_decision() {
        let (ours, mut theirs) = stuffed().await;
        let mut session =
            Session::<Receipt>::new(Arc::new(Config::default()), Start::default(), Instant::now());
        assert_eq!(session.poll_event(), Some(Event::Ask(Question::Connect)));
        session.answer(HostAnswer::Accept(None), Instant::now());
        let mut stream = ClientStream::Plain(ours);
        let (done, decided) = oneshot::channel();
        let decision = async {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            HostAnswer::Accept(None)
        };
        // The other end begins to read only after the decision, which the greeting waits for.
        let reads = async {
            decided.await.unwrap();
            tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await
        };
        let both = async {
            tokio::select! {
                answer = answer(&mut session, &mut stream, decision) => answer.unwrap(),
                read = reads => panic!("the connection ended: {read:?}"),
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), both).await;
        assert_eq!(answer.expect("neither waits for the other"), HostAnswer::Accept(None));
    }
}
