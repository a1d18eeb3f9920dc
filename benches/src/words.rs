//! Words as the word count of the comparison splits them: Java's `split("\\W+")`.

/// The pieces of `line` between runs of characters other than `a-z A-Z 0-9 _`. As in Java, an empty
/// piece comes first if the line begins with such a run, empty pieces at the end are dropped, and a
/// line without such a run is its own only piece.
pub(crate) fn split(line: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = (line.is_empty() || line.contains(is_word)).then_some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (word, after) = match text.find(|c| !is_word(c)) {
            Some(end) => (&text[..end], text[end..].trim_start_matches(|c| !is_word(c))),
            None => (text, ""),
        };
        rest = (!after.is_empty()).then_some(after);
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn splits_as_java_does() {
        let words = |line| split(line).collect::<Vec<_>>();
        assert_eq!(words("in the beginning, god"), ["in", "the", "beginning", "god"]);
        assert_eq!(words("1:1 it's so."), ["1", "1", "it", "s", "so"]);
        assert_eq!(words("(and he said)"), ["", "and", "he", "said"]);
        assert_eq!(words("caf\u{e9} x"), ["caf", "x"]);
        assert_eq!(words(""), [""]);
        assert_eq!(words("word"), ["word"]);
        assert!(words(" ... ").is_empty());
    }
}
