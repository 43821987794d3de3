//! A cache of open segment files, shared by the writer and the readers of the log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment_file::SegmentFolder;

/// The open files of segments. They are opened when needed, and their number is bounded, however long the log is.
pub(crate) struct FileCache {
    folder: PathBuf,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
}

impl FileCache {
    /// The most files that are kept open.
    const OPEN: usize = 256;

    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default() }
    }

    /// A segment's file; an error of the kind `NotFound` when there is no such segment.
    pub(crate) fn get(&self, number: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.lock().get(&number) {
            return Ok(file.clone());
        }
        let path = self.folder.join(SegmentFolder::name(number));
        let file = Arc::new(File::options().read(true).write(true).open(path)?);
        self.put(number, file.clone());
        Ok(file)
    }

    pub(crate) fn put(&self, number: u64, file: Arc<File>) {
        let mut open = self.open.lock();
        open.insert(number, file);
        if open.len() > Self::OPEN {
            // The newest are asked for most often.
            open.pop_first();
        }
    }

    pub(crate) fn take(&self, number: u64) {
        self.open.lock().remove(&number);
    }
}
