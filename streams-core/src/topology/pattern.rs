//! Topics that a source reads without knowing their names.

use std::fmt;
use std::sync::Arc;

/// Which topics a source reads: all those of which it says so, also those that are made while the
/// application runs. The application's own internal topics are never among them.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    is_wildcard: bool,
    matches: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Pattern {
    /// The topics whose whole name is like this text, in which `*` stands for any characters, or none.
    ///
    /// ```
    /// use streams_core::topology::Pattern;
    /// let orders = Pattern::wildcard("orders-*-eu");
    /// assert!(orders.matches("orders-2026-eu") && orders.matches("orders--eu"));
    /// assert!(!orders.matches("orders-eu") && !orders.matches("all-orders-2026-eu"));
    /// ```
    pub fn wildcard(text: &str) -> Self {
        let parts: Vec<String> = text.split('*').map(str::to_owned).collect();
        let is_wildcard = true;
        Self { is_wildcard, ..Self::matching(text, move |topic| is_like(topic, &parts)) }
    }

    /// The topics for which `matches` holds: a regular expression, for instance. `text` is how
    /// `describe()` shows it.
    pub fn matching(text: &str, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { text: text.into(), is_wildcard: false, matches: Arc::new(matches) }
    }

    /// Whether a topic of this name is read.
    pub fn matches(&self, topic: &str) -> bool {
        (self.matches)(topic)
    }

    /// How it is shown.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Wildcards of one text are equal, and what was cloned.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let both = self.is_wildcard && other.is_wildcard;
        (both && self.text == other.text) || Arc::ptr_eq(&self.matches, &other.matches)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// Whether a name has these parts in this order, the first at its beginning and the last at its end.
fn is_like(name: &str, parts: &[String]) -> bool {
    let Some((first, others)) = parts.split_first() else {
        return false;
    };
    let Some((last, between)) = others.split_last() else {
        return name == first;
    };
    let Some(mut rest) = name.strip_prefix(first.as_str()) else {
        return false;
    };
    for part in between {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_star_stands_for_anything_and_everything_else_for_itself() {
        for (pattern, names, others) in [
            ("a", &["a"][..], &["", "aa", "ab"][..]),
            ("*", &["", "a", "a-b"], &[]),
            ("a*", &["a", "ab"], &["", "ba"]),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["acb", "ab", "bc"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*.log", &["x.log"], &["xlog", "x.logs"]),
        ] {
            let pattern = Pattern::wildcard(pattern);
            names.iter().for_each(|name| assert!(pattern.matches(name), "{pattern:?} {name}"));
            others.iter().for_each(|name| assert!(!pattern.matches(name), "{pattern:?} {name}"));
        }
    }
}
