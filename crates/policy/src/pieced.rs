//! A body made of pieces of another one, so that a footer on a 25 MB message costs only a few hundred bytes.

use std::sync::Arc;

use pintle_mail::{Body, BodyFuture, Bytes};

/// A piece of a new body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A range of the old body.
    Copy {
        /// The offset of the range in the old body.
        offset: u64,
        /// The length in octets; the range is cut at the end of the old body.
        len: u64,
    },
    /// New octets to insert.
    Bytes(Bytes),
}

/// A body that reads its pieces from where they are stored.
pub(crate) struct Pieced {
    base: Arc<dyn Body>,
    pieces: Vec<Piece>,
    /// The end of each piece in the new body, for a binary search of the first piece of a read.
    ends: Vec<u64>,
}

impl Pieced {
    pub(crate) fn new(base: Arc<dyn Body>, mut pieces: Vec<Piece>) -> Self {
        for piece in &mut pieces {
            if let Piece::Copy { offset, len } = piece {
                *len = (*len).min(base.size().saturating_sub(*offset));
            }
        }
        pieces.retain(|piece| piece.size() > 0);
        let ends = pieces.iter().scan(0, |end, piece| {
            *end += piece.size();
            Some(*end)
        });
        Self { base, ends: ends.collect(), pieces }
    }

    /// The index of the piece that contains this offset, or the number of pieces.
    fn locate(&self, offset: u64) -> usize {
        self.ends.partition_point(|end| *end <= offset)
    }

    fn start(&self, piece: usize) -> u64 {
        piece.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

impl Piece {
    fn size(&self) -> u64 {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl Body for Pieced {
    fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        Box::pin(async move {
            let mut out = Vec::new();
            let mut at = self.locate(offset);
            while out.len() < len
                && let Some(piece) = self.pieces.get(at)
            {
                let place = offset + out.len() as u64;
                let within = place - self.start(at);
                let wanted = len - out.len();
                let left = usize::try_from(piece.size() - within).unwrap_or(usize::MAX).min(wanted);
                let bytes = match piece {
                    Piece::Copy { offset, .. } => self.base.read(offset + within, left).await?,
                    Piece::Bytes(bytes) => bytes.read(within, left).await?,
                };
                if bytes.is_empty() {
                    break;
                }
                out.extend_from_slice(&bytes);
                // The old body may return less than was asked for.
                at = self.locate(offset + out.len() as u64).max(at);
            }
            Ok(out.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn pieces_read_as_one_from_any_offset() {
        let base: Arc<dyn Body> = Arc::new(Bytes::from_static(b"0123456789"));
        let pieces = vec![
            Piece::Copy { offset: 2, len: 3 },
            Piece::Copy { offset: 10, len: 3 },
            Piece::Bytes(Bytes::from_static(b"ab")),
            Piece::Bytes(Bytes::new()),
            Piece::Copy { offset: 8, len: 99 },
        ];
        let body = Pieced::new(base, pieces);
        let whole = b"234ab89";
        assert_eq!(body.size(), whole.len() as u64);
        for from in 0..=whole.len() {
            for len in 0..=whole.len() {
                let read = body.read(from as u64, len).now_or_never().unwrap().unwrap();
                assert_eq!(&read[..], &whole[from..(from + len).min(whole.len())]);
            }
        }
    }
}
