//! Where in a JSON text things stand: line and column of every key and value, by their paths.
//!
//! Paths are spelled as errors of plugins spell them: `plugins[0].ipam.ranges[0][0].subnet`. The text must be JSON that
//! serde_json takes; of anything else the places up to where it goes wrong are told.

use std::collections::BTreeMap;

/// A place in a text: line and column, from 1 on. Columns count characters.
pub(crate) type Place = (usize, usize);

/// How deep objects and arrays are followed; serde_json refuses what is deeper.
const DEPTH: usize = 128;

/// The places of a text.
#[derive(Debug, Default)]
pub(crate) struct Locations(BTreeMap<String, Place>);

impl Locations {
    /// Finds everything in a text.
    pub(crate) fn of(text: &str) -> Self {
        let mut scanner = Scanner {
            rest: text.chars().peekable(),
            place: (1, 1),
            found: BTreeMap::new(),
        };
        let _ = scanner.value("", 0);
        Self(scanner.found)
    }

    /// Whether there is something at a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.keys().any(|known| known.eq_ignore_ascii_case(path))
    }

    /// The place of a key, or of an element of an array; of a path that is not there the place of the innermost thing
    /// around it that is.
    pub(crate) fn find(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            let exact = self.0.get(path).copied();
            let spelled = || {
                let mut keys = self.0.iter();
                keys.find(|(known, _)| known.eq_ignore_ascii_case(path))
                    .map(|(_, place)| *place)
            };
            if let Some(place) = exact.or_else(spelled) {
                return place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None if path.is_empty() => return (1, 1),
                None => path = "",
            }
        }
    }
}

struct Scanner<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    place: Place,
    found: BTreeMap<String, Place>,
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        match next {
            '\n' => self.place = (self.place.0 + 1, 1),
            _ => self.place.1 += 1,
        }
        Some(next)
    }

    /// The next character that is no white space, which stays.
    fn peek(&mut self) -> Option<char> {
        while self
            .rest
            .peek()
            .is_some_and(|next| next.is_ascii_whitespace())
        {
            self.next();
        }
        self.rest.peek().copied()
    }

    fn value(&mut self, path: &str, depth: usize) -> Option<()> {
        let first = self.peek()?;
        let place = self.place;
        self.found.entry(path.to_owned()).or_insert(place);
        match first {
            _ if depth > DEPTH => None,
            '{' => self.object(path, depth),
            '[' => self.array(path, depth),
            '"' => self.string().map(drop),
            _ => {
                let ends = |next: &char| next.is_ascii_whitespace() || ",]}".contains(*next);
                while self.rest.peek().is_some_and(|next| !ends(next)) {
                    self.next();
                }
                Some(())
            }
        }
    }

    fn object(&mut self, path: &str, depth: usize) -> Option<()> {
        self.next();
        while self.peek()? != '}' {
            if self.peek()? == ',' {
                self.next();
                continue;
            }
            let place = (self.peek().map(|_| self.place))?;
            let key = self.string()?;
            let inner = match path {
                "" => key,
                path => format!("{path}.{key}"),
            };
            self.found.insert(inner.clone(), place);
            (self.peek()? == ':').then(|| self.next())?;
            self.value(&inner, depth + 1)?;
        }
        self.next().map(drop)
    }

    fn array(&mut self, path: &str, depth: usize) -> Option<()> {
        self.next();
        let mut index = 0;
        while self.peek()? != ']' {
            if self.peek()? == ',' {
                self.next();
                continue;
            }
            self.value(&format!("{path}[{index}]"), depth + 1)?;
            index += 1;
        }
        self.next().map(drop)
    }

    /// A string without its quotes; escapes stay as they are written.
    fn string(&mut self) -> Option<String> {
        (self.peek()? == '"').then(|| self.next())?;
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => text.extend(self.next()),
                other => text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_elements_are_found_by_their_paths() {
        let text = "{\n  \"name\": \"n\",\n  \"plugins\": [\n    {\"type\": \"a\\\"]\"}, 5,\n    {\"ipam\": {\"ranges\": [[{\"subnet\": 1}]]}}\n  ]\n}";
        let found = Locations::of(text);
        for (path, place) in [
            ("", (1, 1)),
            ("name", (2, 3)),
            ("plugins", (3, 3)),
            ("plugins[0].type", (4, 6)),
            ("plugins[1]", (4, 23)),
            ("plugins[2].ipam.ranges[0][0].subnet", (5, 28)),
            ("plugins[2].IPAM", (5, 6)),
            ("plugins[2].ipam.missing", (5, 6)),
            ("nothing.of.this", (1, 1)),
        ] {
            assert_eq!(found.find(path), place, "{path}");
        }
    }

    #[test]
    fn garbage_and_deep_texts_end() {
        for text in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "[1,",
            "nonsense",
            "{\"a\" 1}",
            "\"\\",
        ] {
            Locations::of(text);
        }
        Locations::of(&"[".repeat(100_000));
        Locations::of(&"{\"a\":".repeat(100_000));
    }
}
