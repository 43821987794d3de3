//! A line diff of two texts in the unified format, by the longest common subsequence.

/// The number of unchanged context lines around each change.
const AROUND: usize = 3;
/// The maximum size of the table of common subsequences, in cells. For larger texts, all differing lines are shown as
/// removed and added.
const MAX_CELLS: usize = 4_000_000;

/// The unified diff of two texts, with their names in its header. None if they are equal.
pub(super) fn unified(before: &str, after: &str, names: (&str, &str)) -> Option<String> {
    if before == after {
        return None;
    }
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let mut out = format!("--- {}\n+++ {}\n", names.0, names.1);
    for hunk in hunks(&steps(&old, &new)) {
        out.push_str(&hunk.text());
    }
    Some(out)
}

/// A line that is unchanged, removed or added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DiffLine<'a> {
    Stays(&'a str),
    Goes(&'a str),
    Comes(&'a str),
}

/// The edit script from the old lines to the new ones. A common beginning and end are skipped first.
fn steps<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffLine<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    let mut steps: Vec<_> = old[..head].iter().map(|line| DiffLine::Stays(line)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) > MAX_CELLS {
        steps.extend(old_middle.iter().map(|line| DiffLine::Goes(line)));
        steps.extend(new_middle.iter().map(|line| DiffLine::Comes(line)));
    } else {
        steps.extend(middle(old_middle, new_middle));
    }
    steps.extend(old_rest[old_rest.len() - tail..].iter().map(|line| DiffLine::Stays(line)));
    steps
}

/// The edit script by the longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<DiffLine<'a>> {
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut steps = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            steps.push(DiffLine::Stays(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            steps.push(DiffLine::Goes(old[i]));
            i += 1;
        } else {
            steps.push(DiffLine::Comes(new[j]));
            j += 1;
        }
    }
    steps
}

/// Changes that are close together, with their context lines.
struct Hunk<'s, 'a> {
    steps: &'s [DiffLine<'a>],
    /// The number of old and of new lines before the hunk.
    old_before: usize,
    new_before: usize,
}

fn hunks<'s, 'a>(steps: &'s [DiffLine<'a>]) -> Vec<Hunk<'s, 'a>> {
    let changes = steps.iter().enumerate().filter(|(_, step)| !matches!(step, DiffLine::Stays(_)));
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (at, _) in changes {
        let (begin, end) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(steps.len()));
        match ranges.last_mut() {
            Some(last) if begin <= last.1 => last.1 = end,
            _ => ranges.push((begin, end)),
        }
    }
    let hunk = |(begin, end): (usize, usize)| {
        let before = &steps[..begin];
        Hunk { steps: &steps[begin..end], old_before: old_lines(before), new_before: new_lines(before) }
    };
    ranges.into_iter().map(hunk).collect()
}

impl Hunk<'_, '_> {
    fn text(&self) -> String {
        let (old, new) = (old_lines(self.steps), new_lines(self.steps));
        let mut text = format!("@@ -{} +{} @@\n", range(self.old_before, old), range(self.new_before, new));
        for step in self.steps {
            let (mark, line) = match step {
                DiffLine::Stays(line) => (' ', line),
                DiffLine::Goes(line) => ('-', line),
                DiffLine::Comes(line) => ('+', line),
            };
            text.push(mark);
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// A range of a hunk header. An empty range is given by the line before it, as the unified format requires.
fn range(before: usize, lines: usize) -> String {
    format!("{},{lines}", if lines == 0 { before } else { before + 1 })
}

fn old_lines(steps: &[DiffLine<'_>]) -> usize {
    steps.iter().filter(|step| !matches!(step, DiffLine::Comes(_))).count()
}

fn new_lines(steps: &[DiffLine<'_>]) -> usize {
    steps.iter().filter(|step| !matches!(step, DiffLine::Goes(_))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_has_no_difference() {
        assert_eq!(unified("a\nb\n", "a\nb\n", ("x", "y")), None);
    }

    #[test]
    fn changes_show_with_the_lines_around_them() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n";
        let new = "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nten\n11\n12\n";
        let first = "@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3\n";
        let second = "@@ -7,6 +8,6 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n";
        let expected = format!("--- a\n+++ b\n{first}{second}");
        assert_eq!(unified(old, new, ("a", "b")).unwrap(), expected);
    }

    #[test]
    fn nothing_becomes_something_and_the_reverse() {
        assert_eq!(unified("", "a\n", ("a", "b")).unwrap(), "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("a\n", "", ("a", "b")).unwrap(), "--- a\n+++ b\n@@ -1,1 +0,0 @@\n-a\n");
    }

    #[test]
    fn what_is_too_different_goes_and_comes_whole() {
        let lines = |word: &str| -> String { (0..3_000).map(|n| format!("{word}{n}\n")).collect() };
        let text = unified(&lines("a"), &lines("b"), ("a", "b")).unwrap();
        assert_eq!(text.lines().count(), 6_003);
    }
}
