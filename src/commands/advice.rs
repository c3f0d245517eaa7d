//! Explanations of reasons and codes: the text of `docs/troubleshooting.md`.

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Every reason with its entry on the page.
pub fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGE.split("\n### ").skip(1).filter_map(|entry| {
        let (reason, text) = entry.split_once('\n')?;
        Some((reason.trim(), text.split("\n## ").next().unwrap_or(text).trim()))
    })
}

/// Explanation of a reason.
pub fn explanation(reason: &str) -> Option<&'static str> {
    entries().find(|(name, _)| *name == reason).map(|(_, text)| text)
}

/// Explanation of a failed Job's code.
pub fn code_explanation(code: &str) -> Option<&'static str> {
    let rows = PAGE.split_once("\n## Why a Job failed\n")?.1.lines();
    let mut rows = rows.filter_map(|row| row.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    rows.find(|(name, _)| *name == code).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::VariantArray as _;

    use super::*;
    use crate::{
        controllers::{backup, bench, failure, site, sitejob},
        domain::code::Code,
        operator,
    };

    #[test]
    fn the_page_has_every_code() {
        for code in Code::VARIANTS.iter().filter(|it| **it != Code::Unknown) {
            assert!(code_explanation(&code.to_string()).is_some_and(|it| it.len() > 20), "{code}");
        }
        assert_eq!(code_explanation("Unknown"), None);
    }

    /// Every reason in the code has its entry, and every entry is of a reason in the code.
    #[test]
    fn the_page_has_every_reason_and_no_other() {
        let sites = site::reason::Reason::VARIANTS.iter().map(ToString::to_string);
        let benches = bench::reason::Reason::VARIANTS.iter().map(ToString::to_string);
        let backups = backup::reason::Reason::VARIANTS.iter().map(ToString::to_string);
        let jobs = sitejob::reason::Reason::VARIANTS.iter().map(ToString::to_string);
        let others = [failure::WRITE_REJECTED, operator::reason::INVALID_VALUE, operator::reason::SLOTS_TAKEN_OVER]
            .map(str::to_owned);
        let code: BTreeSet<String> = sites.chain(benches).chain(backups).chain(jobs).chain(others).collect();
        let page: BTreeSet<String> = entries().map(|(reason, _)| reason.to_owned()).collect();
        assert_eq!(code.difference(&page).collect::<Vec<_>>(), Vec::<&String>::new(), "reasons without an entry");
        assert_eq!(page.difference(&code).collect::<Vec<_>>(), Vec::<&String>::new(), "entries without a reason");
        assert!(entries().all(|(_, text)| text.len() > 20 && !text.contains("## ")));
    }
}
