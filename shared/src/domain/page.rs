//! Lists: what a caller asks for, and one page of it.
use crate::error::{Error, FieldError, Result};

/// Which part of a list. `number` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub number: i64,
    pub size: i64,
    /// A part of a name or description, without regard to case.
    pub search: Option<String>,
    pub status: Option<String>,
    /// A field that the list can be sorted by; `-` before it: descending.
    pub sort: Option<String>,
}

impl PageRequest {
    pub fn offset(&self) -> i64 {
        (self.number - 1).saturating_mul(self.size)
    }

    /// That `status` and `sort` are among those that the list knows; `sorts` without `-`.
    ///
    /// # Errors
    /// `Invalid`, naming both when both are unknown.
    pub fn check(&self, statuses: &[&str], sorts: &[&str]) -> Result<()> {
        let mut bad = Vec::new();
        let mut known = |field: &str, value: Option<&str>, all: &[&str]| {
            if value.is_some_and(|value| !all.contains(&value)) {
                let message = if all.is_empty() { "not for this list".to_owned() } else { format!("one of {}", all.join(", ")) };
                bad.push(FieldError { field: field.to_owned(), message });
            }
        };
        known("status", self.status.as_deref(), statuses);
        known("sort", self.sort.as_deref().map(|sort| sort.strip_prefix('-').unwrap_or(sort)), sorts);
        if bad.is_empty() { Ok(()) } else { Err(Error::invalid_fields(bad)) }
    }

    /// For `LIKE … ESCAPE '\'` on lower-cased text; `%` when nothing is searched for.
    pub fn pattern(&self) -> String {
        let Some(search) = self.search.as_deref().map(str::trim).filter(|s| !s.is_empty()) else { return "%".to_owned() };
        let mut pattern = String::from("%");
        for c in search.to_lowercase().chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('%');
        pattern
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// Of the whole list.
    pub total: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_does_not_know_is_named() {
        let page = |status: Option<&str>, sort: Option<&str>| PageRequest {
            number: 1,
            size: 20,
            search: None,
            status: status.map(str::to_owned),
            sort: sort.map(str::to_owned),
        };
        let named = |page: PageRequest| -> Vec<_> {
            let checked = page.check(&["draft"], &["name"]);
            checked.err().into_iter().flat_map(|e| e.fields).map(|f| f.field).collect()
        };
        assert_eq!(named(page(Some("gone"), Some("--name"))), ["status", "sort"]);
        assert!(named(page(Some("draft"), Some("-name"))).is_empty() && named(page(None, None)).is_empty());
        assert!(page(Some("draft"), None).check(&[], &[]).is_err());
    }

    #[test]
    fn what_is_searched_for_is_no_pattern() {
        let page = |search: &str| PageRequest { number: 3, size: 20, search: Some(search.into()), status: None, sort: None };
        assert_eq!(page("50%_A").pattern(), "%50\\%\\_a%");
        assert_eq!(page("  ").pattern(), "%");
        assert_eq!(page("").offset(), 40);
    }
}
