//! The result of checking a configuration, and its display in the style of a compiler: each mistake with its line.

use std::fmt;
use std::path::PathBuf;

use crate::position::{TextPosition, position};
use crate::{Cause, Mistake, Settings};

/// The result of checking a configuration: its mistakes, or its settings.
#[derive(Debug)]
pub struct ConfigReport {
    /// The path of the file, as the caller gave it.
    pub path: PathBuf,
    /// The text of the file; empty if it could not be read.
    pub text: String,
    /// The mistakes, with which the gateway does not start, in the order of the file.
    pub mistakes: Vec<Mistake>,
    /// The warnings, with which the gateway starts, in the order of the file.
    pub warnings: Vec<Mistake>,
    /// The settings of the program; none if and only if there are mistakes.
    pub settings: Option<Settings>,
    /// The plugins that have no mistake in their own section, so that they can be checked in spite of other mistakes.
    pub plugins: pintle_plugin::Config,
}

impl ConfigReport {
    /// A report of these mistakes alone, without settings.
    pub(crate) fn of(path: PathBuf, text: String, mistakes: Vec<Mistake>) -> Self {
        let plugins = pintle_plugin::Config::default();
        Self { path, text, mistakes, warnings: Vec::new(), settings: None, plugins }
    }

    /// Displays all mistakes and warnings with their places, without the last line, which counts them.
    pub fn findings(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.show_all(f))
    }

    fn show_all(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mistakes.iter().try_for_each(|mistake| self.show(f, "error", mistake))?;
        self.warnings.iter().try_for_each(|warning| self.show(f, "warning", warning))
    }

    /// Returns the settings if there are no mistakes.
    ///
    /// # Errors
    /// The report itself, whose `Display` shows all mistakes.
    pub fn into_settings(mut self) -> Result<Settings, Box<Self>> {
        self.settings.take().ok_or_else(|| Box::new(self))
    }

    /// The position in the file at which a mistake begins.
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
        // Tabs stay tabs, so that the marks are below the text that they mark.
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

/// The numbers of mistakes and warnings as text: `1 mistake, 2 warnings`.
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

/// Replaces a password on the line by stars, since reports go into logs and tickets.
fn mask(line: &str) -> String {
    let Some(key) = line.find("password") else {
        return line.to_owned();
    };
    let is_between = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '\t' | '=');
    let value = line[key..].find(|c| !is_between(c)).map_or(line.len(), |at| key + at);
    match line[value..].starts_with(['"', '\'']) {
        // The whole rest of the line: the closing quote may be missing, or not be the first one.
        true => format!("{}{}", &line[..=value], "*".repeat(line[value + 1..].chars().count())),
        false => line.to_owned(),
    }
}
