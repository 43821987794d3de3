//! The results of the matrix as a table for people, and as JSON.

use serde_json::{Value, json};

use super::RowOutcome;

const BEGIN: &str = "<!-- faults: begin -->";
const END: &str = "<!-- faults: end -->";

/// The table in Markdown.
#[must_use]
pub fn table(outcomes: &[RowOutcome]) -> String {
    let head = "| row | what is done | rounds | acknowledged | arrived | twice | bounced | set aside | lost | refused | broken | restarts | |\n\
                |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n";
    outcomes.iter().fold(head.to_owned(), |text, outcome| text + &line(outcome))
}

fn line(outcome: &RowOutcome) -> String {
    let account = &outcome.account;
    let numbers = [
        u64::from(outcome.rounds),
        account.promised,
        account.accounted - account.reported.min(account.accounted),
        account.twice,
        account.reported,
        outcome.set_aside,
        outcome.lost,
        account.refused,
        account.broken,
        outcome.restarts,
    ];
    let numbers = numbers.map(|number| number.to_string()).join(" | ");
    let verdict = if outcome.problems.is_empty() { "good".to_owned() } else { outcome.problems.join("; ") };
    format!(
        "| `{}` | {} | {numbers} | {} |\n",
        outcome.name,
        outcome.about,
        verdict.replace('|', "/").replace('\n', " ")
    )
}

/// Replaces the table between the markers of the page.
///
/// # Errors
/// The page has no markers.
pub fn page(page: &str, outcomes: &[RowOutcome], heading: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or("the page has no marker for the start of the table")?;
    let (_, after) = rest.split_once(END).ok_or("the page has no marker for the end of the table")?;
    Ok(format!("{before}{BEGIN}\n\n{heading}\n\n{}\n{END}{after}", table(outcomes)))
}

/// All results as JSON.
#[must_use]
pub fn json(outcomes: &[RowOutcome]) -> Value {
    outcomes.iter().map(figures).collect()
}

fn figures(outcome: &RowOutcome) -> Value {
    let account = &outcome.account;
    json!({
        "row": outcome.name,
        "rounds": outcome.rounds,
        "acknowledged": account.promised,
        "accounted": account.accounted,
        "bounced": account.reported,
        "twice": account.twice,
        "unasked": account.unasked,
        "changed": account.changed,
        "set_aside": outcome.set_aside,
        "lost": outcome.lost,
        "refused": account.refused,
        "broken": account.broken,
        "restarts": outcome.restarts,
        "seconds": outcome.took.as_secs_f64(),
        "problems": outcome.problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_goes_between_the_marks_and_nothing_else_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = page(&text, &[], "now").unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n") && !new.contains("old"), "{new}");
        assert!(new.contains("now") && page(&new, &[], "now").unwrap() == new);
        assert!(page("no marks", &[], "now").is_err());
    }
}
