//! Patterns of channel names: `*` stands for any characters but `:`, `**` for any.

use std::fmt;

/// A pattern may be as long as a channel name, in bytes.
pub(crate) const MAX_PATTERN_BYTES: usize = 255;

/// A compiled pattern.
///
/// Matching simulates the pattern as a nondeterministic automaton (Thompson, 1968), all states at once. Its time is
/// bounded by pattern length × name length, whatever the pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What a name must begin with.
    prefix: Box<[u8]>,
    /// What must follow; it begins with a wildcard, unless it is empty.
    rest: Box<[Token]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `*`
    Part,
    /// `**`
    Any,
}

impl Pattern {
    /// Compiles a text of 1 … [`MAX_PATTERN_BYTES`] bytes; `None` when it is empty or longer.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return None;
        }
        let prefix = text.bytes().take_while(|byte| *byte != b'*').collect::<Box<[u8]>>();
        let mut rest = Vec::new();
        for byte in text.bytes().skip(prefix.len()) {
            match (byte, rest.last_mut()) {
                (b'*', Some(last @ Token::Part)) => *last = Token::Any,
                // Whatever follows `**` at once, it says the same.
                (b'*', Some(Token::Any)) => {}
                (b'*', _) => rest.push(Token::Part),
                _ => rest.push(Token::Byte(byte)),
            }
        }
        Some(Self { prefix, rest: rest.into() })
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let Some(name) = name.as_bytes().strip_prefix(&*self.prefix) else { return false };
        match &*self.rest {
            [] => name.is_empty(),
            [Token::Any] => true,
            [Token::Part] => !name.contains(&b':'),
            rest => simulate(rest, name),
        }
    }
}

/// State `n` means that the tokens before `n` have matched what was read.
fn simulate(tokens: &[Token], name: &[u8]) -> bool {
    let mut states = [false; MAX_PATTERN_BYTES + 1];
    enter(tokens, &mut states, 0);
    for &byte in name {
        let mut next = [false; MAX_PATTERN_BYTES + 1];
        for (state, token) in tokens.iter().enumerate().filter(|(state, _)| states[*state]) {
            match token {
                Token::Byte(expected) if *expected == byte => enter(tokens, &mut next, state + 1),
                Token::Part if byte != b':' => enter(tokens, &mut next, state),
                Token::Any => enter(tokens, &mut next, state),
                Token::Byte(_) | Token::Part => {}
            }
        }
        states = next;
    }
    states[tokens.len()]
}

/// Enters a state, and those after it that need no further byte.
fn enter(tokens: &[Token], states: &mut [bool], mut state: usize) {
    while !states[state] {
        states[state] = true;
        match tokens.get(state) {
            Some(Token::Part | Token::Any) => state += 1,
            Some(Token::Byte(_)) | None => return,
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.prefix.to_vec();
        for token in &self.rest {
            match token {
                Token::Byte(byte) => bytes.push(*byte),
                Token::Part => bytes.push(b'*'),
                Token::Any => bytes.extend(b"**"),
            }
        }
        write!(formatter, "{:?}", String::from_utf8_lossy(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn one_star_stays_within_its_part() {
        assert!(matches("chat:*", "chat:lobby"));
        assert!(!matches("chat:*", "chat:lobby:private"));
        assert!(!matches("chat:*", "chatter:lobby"));
        assert!(matches("chat:*:private", "chat:lobby:private"));
        assert!(matches("chat:team-*-room", "chat:team-a-room"));
        assert!(!matches("chat:team-*-room", "chat:team-a:b-room"));
    }

    #[test]
    fn two_stars_cross_parts() {
        assert!(matches("**", "chat:lobby:private"));
        assert!(matches("chat:**", "chat:lobby:private"));
        assert!(matches("chat:**:log", "chat:a:b:c:log"));
        assert!(matches("**", "@alice"));
        assert!(!matches("chat:**:log", "chat:a:b:c"));
    }

    #[test]
    fn a_pattern_without_stars_is_one_channel() {
        assert!(matches("chat:lobby", "chat:lobby"));
        assert!(!matches("chat:lobby", "chat:lobby2"));
        assert!(!matches("chat:lobby", "chat:lobb"));
    }

    #[test]
    fn empty_and_overlong_patterns_are_refused() {
        assert!(Pattern::new("").is_none());
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN_BYTES)).is_some());
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_none());
    }

    #[test]
    fn a_pattern_made_to_backtrack_costs_no_more_than_its_length() {
        let pattern = Pattern::new(&"*a".repeat(127)).unwrap();
        let name = format!("{}b", "a".repeat(254));
        let start = Instant::now();
        assert!(!pattern.matches(&name));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    /// The definition, written down without a thought for time.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => {
                reference(rest, name) || (!name.is_empty() && reference(pattern, &name[1..]))
            }
            [b'*', rest @ ..] => {
                reference(rest, name)
                    || (!name.is_empty() && name[0] != b':' && reference(pattern, &name[1..]))
            }
            [byte, rest @ ..] => name.first() == Some(byte) && reference(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn it_agrees_with_the_definition(pattern in "[ab:*]{1,8}", name in "[ab:]{0,8}") {
            prop_assert_eq!(matches(&pattern, &name), reference(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_text_makes_it_panic(pattern in "\\PC{1,80}", name in "\\PC{0,80}") {
            if let Some(pattern) = Pattern::new(&pattern) {
                let _ = pattern.matches(&name);
            }
        }
    }
}
