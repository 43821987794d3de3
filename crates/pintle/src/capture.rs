//! The sandbox's captured messages: an .eml file for each, and a line in an index that `pintle sandbox messages` reads.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use pintle_admin::SandboxMessage as Entry;
use pintle_mail::{EnhancedCode, HeaderBlock, Reply};
use pintle_outbound::{Capture, CapturedMessage};

/// The size of the pieces in which a body is copied, in octets.
const COPY: usize = 256 * 1024;
const INDEX: &str = "index.jsonl";

/// Writes messages into a folder.
pub(crate) struct CaptureFolder {
    path: PathBuf,
    /// Called after each message that was written.
    observer: Box<dyn Fn(&Entry) + Send + Sync>,
}

impl CaptureFolder {
    /// Opens the folder, and creates it if it is missing.
    pub(crate) fn open(path: PathBuf, observer: impl Fn(&Entry) + Send + Sync + 'static) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        Ok(Self { path, observer: Box::new(observer) })
    }

    async fn write(&self, captured: &CapturedMessage) -> io::Result<Entry> {
        let file = self.path.join(format!("{}.eml", captured.id));
        let mut out = fs::File::create(&file)?;
        out.write_all(&captured.head)?;
        let mut offset = 0;
        loop {
            let piece = captured.body.read(offset, COPY).await.map_err(io::Error::other)?;
            if piece.is_empty() {
                break;
            }
            out.write_all(&piece)?;
            offset += piece.len() as u64;
        }
        let entry = entry(captured, file);
        self.index(&entry)?;
        Ok(entry)
    }

    fn index(&self, entry: &Entry) -> io::Result<()> {
        let mut index = fs::File::options().create(true).append(true).open(self.path.join(INDEX))?;
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        index.write_all(&line)
    }
}

impl Capture for CaptureFolder {
    fn capture(&self, captured: CapturedMessage) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            match self.write(&captured).await {
                Ok(entry) => {
                    (self.observer)(&entry);
                    Reply::new(250, EnhancedCode(2, 0, 0), format!("Captured in {}", entry.file.display()))
                }
                Err(error) => Reply::new(
                    451,
                    EnhancedCode(4, 3, 0),
                    format!("The sandbox cannot write its file: {error}"),
                ),
            }
        })
    }
}

/// The folder of captured messages: `messages`, beside the spool's folder.
pub(crate) fn messages_beside(spool: &Path) -> PathBuf {
    spool.with_file_name("messages")
}

/// Reads the index of the folder, oldest message first. Empty if there is no index yet.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let text = match fs::read_to_string(folder.join(INDEX)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn entry(captured: &CapturedMessage, file: PathBuf) -> Entry {
    let header = HeaderBlock::parse(captured.head.clone());
    let subject = header.named("Subject").next().map(|field| field.value());
    Entry {
        id: captured.id,
        received_ms: std::time::SystemTime::now().into(),
        sender: captured.envelope.sender.clone(),
        recipients: captured.envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        subject,
        size: captured.head.len() as u64 + captured.body.size(),
        file,
    }
}
