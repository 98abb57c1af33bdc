//! Why somebody did something: what every act of judgement is told with, by whichever way it comes.

/// A reason is a sentence or two.
pub const REASON_CHARS_MAX: usize = 500;

/// Whether it says something, in no more than a sentence or two. On one line: a reason is shown in lists, on terminals and in exports,
/// where a control character would make something else of what stands beside it.
pub fn is_reason(text: &str) -> bool {
    is_line(text, REASON_CHARS_MAX)
}

/// Whether it is one line that says something, of at most so many characters.
pub(crate) fn is_line(text: &str, chars_max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        for good in ["x", "booked twice", "the fan wrote: \u{00fc}\u{20ac}", &"\u{00e9}".repeat(REASON_CHARS_MAX)] {
            assert!(is_reason(good), "{good:?}");
        }
        for bad in ["", "  ", "\n", "two\nlines", "a\ttab", "\u{1b}[2J", "nul\0", &"x".repeat(REASON_CHARS_MAX + 1)] {
            assert!(!is_reason(bad), "{bad:?}");
        }
    }
}
