//! Lines and columns: where in a file an octet stands.

/// A place in a file, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPosition {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The position of the octet at `offset`; the end of the text for what lies beyond it.
pub(crate) fn position(text: &str, offset: usize) -> TextPosition {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    TextPosition { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}
