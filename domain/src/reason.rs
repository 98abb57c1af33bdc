//! Why somebody did something: what every act of judgement is told with, by whichever way it comes.

/// A reason is a sentence or two.
pub const REASON_CHARS_MAX: usize = 500;

/// What a reason must be, to say after "expected why, ".
pub const REASON_FORM: &str = "in 1 to 500 characters on one line, with a letter or digit and nothing invisible";

/// Whether it says something, in no more than a sentence or two. On one line: a reason is shown in lists, on terminals and in exports,
/// where a control character, or one that turns the direction of text, would make something else of what stands beside it.
pub fn is_reason(text: &str) -> bool {
    is_line(text, REASON_CHARS_MAX)
}

/// Whether it is one line that says something, with a letter or a digit, of at most so many characters.
pub(crate) fn is_line(text: &str, chars_max: usize) -> bool {
    let says = text.chars().any(char::is_alphanumeric);
    says && text.chars().count() <= chars_max && !text.chars().any(|c| c.is_control() || is_unseen(c))
}

/// What is not seen itself and changes how the rest is: ends of lines and paragraphs, turns of direction, blanks of no width, tags;
/// and letters that fill a place. Of Unicode's format characters and separators those that no script needs: joiners are not among
/// them, nor the marks of direction, which turn nothing but themselves.
const fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_reason_is_what_is_asked_of_it() {
        assert!(REASON_FORM.contains(&REASON_CHARS_MAX.to_string()));
    }

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        for good in ["x", "booked twice", "the fan wrote: \u{00fc}\u{20ac}", &"\u{00e9}".repeat(REASON_CHARS_MAX)] {
            assert!(is_reason(good), "{good:?}");
        }
        for unseen in ['\u{200b}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{3164}', '\u{e0041}']
        {
            assert!(!is_reason(&format!("booked{unseen}twice")), "{unseen:?}");
            assert!(!is_reason(&unseen.to_string()), "{unseen:?}");
        }
        // Persian needs the joiner.
        assert!(is_reason("\u{646}\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}"));
        for bad in [
            "",
            "  ",
            "?",
            "--",
            "\u{200d}",
            "\n",
            "two\nlines",
            "a\ttab",
            "\u{1b}[2J",
            "nul\0",
            &"x".repeat(REASON_CHARS_MAX + 1),
        ] {
            assert!(!is_reason(bad), "{bad:?}");
        }
    }
}
