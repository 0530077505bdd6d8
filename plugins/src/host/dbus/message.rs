//! Messages of D-Bus, as bytes ("Message Protocol" of the specification).
//!
//! A message is a header, padded to a multiple of eight bytes, and a body. Numbers have the byte order that the first
//! byte names, and each value is aligned to its size, counted from the beginning of the message.

/// How much is read to know how long the message is.
pub(super) const HEADER: usize = 16;

/// The longest message that is read. What we ask for is short; a list of all sources of a zone is the longest.
const LONGEST: usize = 16 << 20;

/// Types of messages.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The bus is not to start the service if it does not run.
const NO_AUTO_START: u8 = 2;

/// Fields of the header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method to call, with texts as its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    service: &'a str,
    object: &'a str,
    interface: &'a str,
    method: &'a str,
    arguments: &'a [&'a str],
}

impl<'a> Call<'a> {
    /// `method` of `interface` of the object that `service` has at this path.
    pub fn new(
        service: &'a str,
        object: &'a str,
        interface: &'a str,
        method: &'a str,
        arguments: &'a [&'a str],
    ) -> Self {
        Self {
            service,
            object,
            interface,
            method,
            arguments,
        }
    }

    /// The message that calls it.
    pub(super) fn message(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        for argument in self.arguments {
            body.text(argument);
        }
        let mut fields = Writer::default();
        for (code, kind, value) in [
            (PATH, b'o', self.object),
            (INTERFACE, b's', self.interface),
            (MEMBER, b's', self.method),
            (DESTINATION, b's', self.service),
        ] {
            fields.field(code, kind);
            fields.text(value);
        }
        if !self.arguments.is_empty() {
            fields.field(SIGNATURE, b'g');
            fields.signature(&"s".repeat(self.arguments.len()));
        }
        let mut message = Writer::default();
        message.bytes.extend([b'l', METHOD_CALL, NO_AUTO_START, 1]);
        for number in [body.bytes.len(), serial as usize, fields.bytes.len()] {
            message.number(number);
        }
        // The fields begin at a multiple of eight, so their own alignment holds here too.
        message.bytes.extend(fields.bytes);
        message.align(8);
        message.bytes.extend(body.bytes);
        message.bytes
    }
}

/// What a method answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, or something that nobody here asks for.
    Other,
    /// A text.
    Text(String),
    /// True or false.
    Truth(bool),
    /// An unsigned number of 32 bits.
    Number(u32),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A message from the bus.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The serial of the call that it answers.
    pub(super) reply_to: Option<u32>,
    /// The answer, or the complaint of an error.
    pub(super) outcome: Result<Value, String>,
}

/// The length of a whole message, from its first [`HEADER`] bytes.
pub(super) fn length_of(header: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(header)?;
    reader.at = 4;
    let body = reader.number()?;
    reader.at = 12;
    let fields = reader.number()?;
    let whole = HEADER
        .checked_add(fields)?
        .checked_next_multiple_of(8)?
        .checked_add(body)?;
    (whole <= LONGEST).then_some(whole)
}

impl Message {
    /// Reads a whole message; `None` if it is broken.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let kind = *bytes.get(1)?;
        reader.at = 12;
        let end = HEADER.checked_add(reader.number()?)?;
        let (mut reply_to, mut name, mut signature) = (None, None, "");
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?) {
                (REPLY_SERIAL, "u") => reply_to = u32::try_from(reader.number()?).ok(),
                (SIGNATURE, "g") => signature = reader.signature()?,
                (ERROR_NAME, "s") => name = Some(reader.text()?),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.number()?),
                // The fields of the specification have no other types.
                _ => return None,
            }
        }
        reader.align(8);
        let value = match signature {
            signature if signature.starts_with('s') => Value::Text(reader.text()?.to_owned()),
            "b" => Value::Truth(reader.number()? != 0),
            "u" => Value::Number(u32::try_from(reader.number()?).ok()?),
            "as" => Value::Texts(reader.texts()?),
            _ => Value::Other,
        };
        let outcome = match (kind, value) {
            (ERROR, Value::Text(complaint)) => Err(complaint),
            (ERROR, _) => Err(name.unwrap_or("error without a name").to_owned()),
            (METHOD_RETURN, value) => Ok(value),
            _ => Ok(Value::Other),
        };
        Some(Self { reply_to, outcome })
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// What we send is far shorter than 4 GiB.
    fn number(&mut self, number: usize) {
        self.align(4);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes.extend(text.bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.bytes
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.bytes());
        self.bytes.push(0);
    }

    /// The beginning of a field of the header: its code and the type of its value.
    fn field(&mut self, code: u8, kind: u8) {
        self.align(8);
        self.bytes.extend([code, 1, kind, 0]);
    }
}

/// Reads values one behind the other; `None` behind the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.first()? {
            b'l' => false,
            b'B' => true,
            _ => return None,
        };
        Some(Self {
            bytes,
            at: 0,
            big_endian,
        })
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// An unsigned number of 32 bits.
    fn number(&mut self) -> Option<usize> {
        self.align(4);
        let bytes = self.take(4)?.try_into().ok()?;
        let number = match self.big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        };
        usize::try_from(number).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.number()?;
        self.terminated(length)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        let length = self.number()?;
        let end = self.at.checked_add(length)?;
        let mut texts = Vec::new();
        while self.at < end {
            texts.push(self.text()?.to_owned());
        }
        Some(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message from the bus: fields of the header, with a text or a number each, and the body behind its signature.
    fn answer(
        kind: u8,
        fields: &[(u8, &str, Option<u32>)],
        signature: &str,
        body: &[u8],
        big: bool,
    ) -> Vec<u8> {
        let number = |value: u32| match big {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let mut header = Vec::new();
        for (code, text, value) in fields {
            header.resize(header.len().next_multiple_of(8), 0);
            match value {
                Some(value) => {
                    header.extend([*code, 1, b'u', 0]);
                    header.extend(number(*value));
                }
                None => {
                    header.extend([*code, 1, b's', 0]);
                    header.extend(number(u32::try_from(text.len()).unwrap()));
                    header.extend(text.bytes());
                    header.push(0);
                }
            }
        }
        header.resize(header.len().next_multiple_of(8), 0);
        header.extend([
            SIGNATURE,
            1,
            b'g',
            0,
            u8::try_from(signature.len()).unwrap(),
        ]);
        header.extend(signature.bytes());
        header.push(0);
        let mut message = vec![if big { b'B' } else { b'l' }, kind, 1, 1];
        message.extend(number(u32::try_from(body.len()).unwrap()));
        message.extend(number(7));
        message.extend(number(u32::try_from(header.len()).unwrap()));
        message.extend(header);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let call = Call::new("a.b", "/a", "a.b", "Do", &["one", "x"]);
        let bytes = call.message(5);
        #[rustfmt::skip]
        let expected = [
            b'l', 1, 2, 1,  14, 0, 0, 0,  5, 0, 0, 0,  72, 0, 0, 0,
            1, 1, b'o', 0,  2, 0, 0, 0, b'/', b'a', 0, 0, 0, 0, 0, 0,
            2, 1, b's', 0,  3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0,
            3, 1, b's', 0,  2, 0, 0, 0, b'D', b'o', 0, 0, 0, 0, 0, 0,
            6, 1, b's', 0,  3, 0, 0, 0, b'a', b'.', b'b', 0, 0, 0, 0, 0,
            8, 1, b'g', 0,  2, b's', b's', 0,
            3, 0, 0, 0, b'o', b'n', b'e', 0,  1, 0, 0, 0, b'x', 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(length_of(&bytes[..HEADER]), Some(bytes.len()));
    }

    #[test]
    fn answers_are_read_in_either_byte_order() {
        for big in [false, true] {
            let number = |value: u32| match big {
                true => value.to_be_bytes(),
                false => value.to_le_bytes(),
            };
            let reply = &[(DESTINATION, ":1.7", None), (REPLY_SERIAL, "", Some(5))];
            let text = |text: &str| {
                let length = u32::try_from(text.len()).unwrap();
                [&number(length), text.as_bytes(), &[0]].concat()
            };
            let read = |bytes: &[u8]| {
                assert_eq!(length_of(&bytes[..HEADER]), Some(bytes.len()));
                let message = Message::parse(bytes).unwrap();
                assert_eq!(message.reply_to, Some(5));
                message.outcome
            };
            let yes = answer(METHOD_RETURN, reply, "b", &number(1), big);
            assert_eq!(read(&yes), Ok(Value::Truth(true)));
            let process = answer(METHOD_RETURN, reply, "u", &number(4711), big);
            assert_eq!(read(&process), Ok(Value::Number(4711)));
            let said = answer(METHOD_RETURN, reply, "s", &text("trusted"), big);
            assert_eq!(read(&said), Ok(Value::Text("trusted".into())));
            let list = [&number(18)[..], &text("one"), &text("three")].concat();
            let list = answer(METHOD_RETURN, reply, "as", &list, big);
            assert_eq!(
                read(&list),
                Ok(Value::Texts(vec!["one".into(), "three".into()]))
            );
            let no = answer(ERROR, reply, "s", &text("ZONE_CONFLICT: x"), big);
            assert_eq!(read(&no), Err("ZONE_CONFLICT: x".into()));
        }
    }

    #[test]
    fn what_is_broken_is_refused() {
        let reply = &[(REPLY_SERIAL, "", Some(5))];
        let whole = answer(METHOD_RETURN, reply, "s", b"\x03\0\0\0abc\0", false);
        assert!(Message::parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..length]), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            // Any answer will do, as long as there is one.
            let _ = (Message::parse(&changed), length_of(&changed[..HEADER]));
        }
        let mut huge = whole;
        huge[4..8].copy_from_slice(&[0xff; 4]);
        assert_eq!(length_of(&huge[..HEADER]), None);
    }
}
