//! The outcome of reading a file, and its rendering like a compiler's: each mistake with its line shown.

use std::fmt;
use std::path::PathBuf;

use crate::position::{TextPosition, position};
use crate::{Cause, Mistake, Settings};

/// All that reading a configuration found.
#[derive(Debug)]
pub struct ConfigReport {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Its text, empty when it could not be read.
    pub text: String,
    /// What keeps the gateway from running, in the order of the file.
    pub mistakes: Vec<Mistake>,
    /// What it can run with, but better would not.
    pub warnings: Vec<Mistake>,
    /// What the program needs; there exactly when there are no mistakes.
    pub settings: Option<Settings>,
    /// The plugins without a mistake of their own, so that they can be looked at whatever is wrong elsewhere.
    pub plugins: pintle_plugin::Config,
}

impl ConfigReport {
    /// Of a file with these mistakes, and nothing else to say.
    pub(crate) fn of(path: PathBuf, text: String, mistakes: Vec<Mistake>) -> Self {
        let plugins = pintle_plugin::Config::default();
        Self { path, text, mistakes, warnings: Vec::new(), settings: None, plugins }
    }

    /// Every mistake and warning with its place, without the line that counts them.
    pub fn findings(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.show_all(f))
    }

    fn show_all(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistakes.iter().try_for_each(|mistake| self.show(f, "error", mistake))?;
        self.warnings.iter().try_for_each(|warning| self.show(f, "warning", warning))
    }

    /// The settings, if the file is good.
    ///
    /// # Errors
    /// The report, to be shown: its `Display` names every mistake.
    pub fn into_settings(mut self) -> Result<Settings, Box<Self>> {
        self.settings.take().ok_or_else(|| Box::new(self))
    }

    /// Where a mistake begins.
    #[must_use]
    pub fn place(&self, mistake: &Mistake) -> TextPosition {
        position(&self.text, mistake.span.start)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, kind: &str, mistake: &Mistake) -> fmt::Result {
        let at = self.place(mistake);
        let key = if mistake.key.is_empty() { String::new() } else { format!("{}: ", mistake.key) };
        writeln!(f, "{kind}: {key}{}", mistake.cause)?;
        if !matches!(mistake.cause, Cause::NoFile(_)) {
            writeln!(f, "  --> {}:{}:{}", self.path.display(), at.line, at.column)?;
            self.quote(f, mistake, at)?;
        } else {
            writeln!(f, "  --> {}", self.path.display())?;
        }
        writeln!(f, "  help: {}\n", mistake.remedy())
    }

    fn quote(&self, f: &mut fmt::Formatter<'_>, mistake: &Mistake, at: TextPosition) -> fmt::Result {
        let Some(line) = self.text.lines().nth(at.line - 1) else {
            return Ok(());
        };
        let line = mask(line);
        let number = at.line.to_string();
        let margin = " ".repeat(number.len());
        let marked = self.text.get(mistake.span.clone()).unwrap_or_default();
        let width = marked.lines().next().unwrap_or_default().chars().count();
        let room = line.chars().count().saturating_sub(at.column - 1);
        let marks = "^".repeat(width.min(room).max(1));
        writeln!(f, " {margin} |")?;
        writeln!(f, " {number} | {line}")?;
        // Tabs stay tabs, so that the marks stand below what they mark.
        let indent: String =
            line.chars().take(at.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, " {margin} | {indent}{marks}")
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_all(f)?;
        write!(f, "{}: {}", self.path.display(), count(self.mistakes.len(), self.warnings.len()))
    }
}

/// How much was found, in words.
#[must_use]
pub fn count(mistakes: usize, warnings: usize) -> String {
    match (mistakes, warnings) {
        (0, 0) => "no mistakes".to_owned(),
        (0, warnings) => format!("no mistakes, {}", counted(warnings, "warning")),
        (mistakes, 0) => counted(mistakes, "mistake"),
        (mistakes, warnings) => format!("{}, {}", counted(mistakes, "mistake"), counted(warnings, "warning")),
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The line, with stars in place of a secret that stands on it: a report goes into logs and tickets.
fn mask(line: &str) -> String {
    let Some(key) = line.find("password") else {
        return line.to_owned();
    };
    let is_between = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '\t' | '=');
    let value = line[key..].find(|c| !is_between(c)).map_or(line.len(), |at| key + at);
    match line[value..].starts_with(['"', '\'']) {
        // All of the rest: the closing quote may be missing, or not be the first one.
        true => format!("{}{}", &line[..=value], "*".repeat(line[value + 1..].chars().count())),
        false => line.to_owned(),
    }
}
