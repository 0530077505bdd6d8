//! Reading JSON the way runtimes expect it of a CNI plugin.
//!
//! Go's `encoding/json`, which every runtime and the Go plugins use, matches keys to fields without
//! regard to case and takes `null` for "leave it as it is". Runtimes rely on it: containerd sends port mappings
//! with `HostPort` and `ContainerPort`. [`from_value`] deserialises any serde type by those rules, and its
//! errors say at which path which value was wrong. Keys of maps (as opposed to structs) are data and kept.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// Longest excerpt of an offending value that an error message shows, in characters.
const EXCERPT: usize = 80;

/// Reads `T` out of `value`. See the module for the rules.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    T::deserialize(Node(value)).map_err(|error| error.at_value(value))
}

thread_local! {
    /// What [`watch`] sees of the calling thread, while somebody watches.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Which keys of which objects were asked for: what the structs that were read out of a document know.
#[derive(Debug, Default)]
pub struct Seen(Vec<(usize, &'static [&'static str])>);

impl Seen {
    /// The keys that anybody knows of this object, none where nobody has read it as a struct. The object must be the one
    /// that was read, not a copy of it.
    pub fn keys_of(&self, object: &Value) -> Option<Vec<&'static str>> {
        let place = std::ptr::from_ref(object).addr();
        let mut readers = self.0.iter().filter(|(at, _)| *at == place).peekable();
        readers.peek()?;
        Some(readers.flat_map(|(_, keys)| keys.iter().copied()).collect())
    }
}

/// Runs `work` and tells which keys [`from_value`] looked for meanwhile on this thread. So there is one list of what a
/// plugin knows: the structs that it reads.
pub fn watch<R>(work: impl FnOnce() -> R) -> (R, Seen) {
    SEEN.set(Some(Seen::default()));
    let result = work();
    (result, SEEN.take().unwrap_or_default())
}

fn note(object: &Value, fields: &'static [&'static str]) {
    SEEN.with_borrow_mut(|seen| {
        if let Some(Seen(seen)) = seen {
            seen.push((std::ptr::from_ref(object).addr(), fields));
        }
    });
}

/// A value that does not fit its field: where it stands, what it is, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Innermost step last in the text, first in here.
    path: Vec<String>,
    value: Option<String>,
    problem: String,
}

impl FieldError {
    /// A value at `path` (as in `ipam.ranges[0]`) that was found wrong after it had been read.
    pub fn new(
        path: impl Into<String>,
        value: impl fmt::Display,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            path: vec![path.into()],
            value: Some(value.to_string()),
            problem: problem.into(),
        }
    }

    /// The same error seen from one level further out.
    #[must_use]
    pub fn within(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }

    fn at_value(mut self, value: &Value) -> Self {
        if self.value.is_none() {
            let mut text = value.to_string();
            if text.chars().count() > EXCERPT {
                text = text.chars().take(EXCERPT).chain(['…']).collect();
            }
            self.value = Some(text);
        }
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = String::new();
        for step in self.path.iter().rev() {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        if path.is_empty() {
            write!(f, "{}", self.problem)?;
        } else {
            write!(f, "field \"{path}\": {}", self.problem)?;
        }
        match &self.value {
            Some(value) => write!(f, " (it is {value})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            value: None,
            problem: message.to_string(),
        }
    }
}

/// A JSON value as a source for serde.
struct Node<'de>(&'de Value);

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = FieldError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Object(map) => visitor.visit_map(Entries::all(map)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        note(self.0, fields);
        match self.0 {
            Value::Object(map) => visitor.visit_map(Entries::of_struct(map, fields)),
            // serde would take an array for the fields in their order.
            Value::Array(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(UnitVariant(text)),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The elements of an array.
struct Items<'de> {
    items: &'de [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = FieldError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, FieldError> {
        let index = self.next;
        let Some(item) = self.items.get(index) else {
            return Ok(None);
        };
        self.next += 1;
        seed.deserialize(Node(item))
            .map(Some)
            .map_err(|error| error.at_value(item).within(format!("[{index}]")))
    }
}

/// The entries of an object, under the names that the target knows them by.
struct Entries<'de> {
    entries: std::vec::IntoIter<(&'de str, &'de Value)>,
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> Entries<'de> {
    fn new(entries: Vec<(&'de str, &'de Value)>) -> Self {
        Self {
            entries: entries.into_iter(),
            current: None,
        }
    }

    fn all(map: &'de Map<String, Value>) -> Self {
        Self::new(
            map.iter()
                .map(|(key, value)| (key.as_str(), value))
                .collect(),
        )
    }

    /// Keys that name a field in any spelling; where two spellings name the same one, the later wins, as in Go.
    fn of_struct(map: &'de Map<String, Value>, fields: &'static [&'static str]) -> Self {
        let mut entries: Vec<(&'de str, &'de Value)> = Vec::with_capacity(fields.len());
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let Some(field) = fields.iter().find(|field| key.eq_ignore_ascii_case(field)) else {
                continue;
            };
            match entries.iter_mut().find(|(known, _)| known == field) {
                Some(entry) => entry.1 = value,
                None => entries.push((field, value)),
            }
        }
        Self::new(entries)
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = FieldError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, FieldError> {
        self.current = self.entries.next();
        match self.current {
            Some((key, _)) => seed
                .deserialize(BorrowedStrDeserializer::new(key))
                .map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, FieldError> {
        let Some((key, value)) = self.current.take() else {
            return Err(de::Error::custom("value asked for before its key"));
        };
        seed.deserialize(Node(value))
            .map_err(|error| error.at_value(value).within(key))
    }
}

/// A string that names a variant without content.
struct UnitVariant<'de>(&'de str);

impl<'de> EnumAccess<'de> for UnitVariant<'de> {
    type Error = FieldError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), FieldError> {
        let name: StrDeserializer<'de, FieldError> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for UnitVariant<'de> {
    type Error = FieldError;

    fn unit_variant(self) -> Result<(), FieldError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, FieldError> {
        Err(de::Error::custom("a plain name was expected"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, FieldError> {
        Err(de::Error::custom("a plain name was expected"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, FieldError> {
        Err(de::Error::custom("a plain name was expected"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Mapping {
        host_port: u16,
        protocol: Option<String>,
        prefix: Option<ipnet::IpNet>,
        sysctl: BTreeMap<String, String>,
        inner: Vec<Mapping>,
        raw: Option<Value>,
        mode: Option<Mode>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
    }

    fn read(value: Value) -> Result<Mapping, String> {
        from_value(&value).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
        let mapping = read(json!({"HostPort": 80, "PROTOCOL": "tcp", "other": {}})).unwrap();
        assert_eq!(
            (mapping.host_port, mapping.protocol.as_deref()),
            (80, Some("tcp"))
        );
    }

    #[test]
    fn keys_of_maps_and_of_raw_values_keep_their_case() {
        let mapping = read(json!({"Sysctl": {"net.A": "1"}, "Raw": {"Key": 1}})).unwrap();
        assert_eq!(mapping.sysctl["net.A"], "1");
        assert_eq!(mapping.raw, Some(json!({"Key": 1})));
    }

    #[test]
    fn null_means_absent() {
        assert_eq!(
            read(json!({"hostPort": null, "inner": null, "mode": null})),
            Ok(Mapping::default())
        );
    }

    #[test]
    fn two_spellings_of_one_key_are_no_error() {
        assert_eq!(
            read(json!({"HostPort": 1, "hostPort": 2}))
                .unwrap()
                .host_port,
            2
        );
    }

    #[test]
    fn enums_are_read_from_their_names() {
        assert_eq!(
            read(json!({"mode": "fast"})).unwrap().mode,
            Some(Mode::Fast)
        );
        let error = read(json!({"mode": "slow"})).unwrap_err();
        assert_eq!(
            error,
            "field \"mode\": unknown variant `slow`, expected `fast` (it is \"slow\")"
        );
    }

    #[test]
    fn who_watches_sees_which_keys_are_known_of_which_object() {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Outer {
            is_it: bool,
            inner: Option<Inner>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Inner {
            deep: u8,
        }
        let value = json!({"isIt": true, "inner": {"deep": 1, "deeper": 2}, "free": {}});
        let (outer, seen) = watch(|| from_value::<Outer>(&value).unwrap());
        assert!(outer.is_it && outer.inner.unwrap().deep == 1);
        assert_eq!(seen.keys_of(&value).unwrap(), ["isIt", "inner"]);
        assert_eq!(seen.keys_of(&value["inner"]).unwrap(), ["deep"]);
        assert!(seen.keys_of(&value["free"]).is_none());
        let _ = from_value::<Outer>(&value).unwrap();
        assert!(
            seen.keys_of(&value.clone()).is_none(),
            "a copy is another one"
        );
    }

    #[test]
    fn errors_name_the_path_the_value_and_the_expectation() {
        assert_eq!(
            read(json!({"inner": [{}, {"HOSTPORT": "80"}]})).unwrap_err(),
            "field \"inner[1].hostPort\": invalid type: string \"80\", expected u16 (it is \"80\")"
        );
        assert_eq!(
            read(json!({"prefix": "10.0.0.0/33"})).unwrap_err(),
            "field \"prefix\": invalid IP address syntax (it is \"10.0.0.0/33\")"
        );
        assert!(
            read(json!({"hostPort": 80.5}))
                .unwrap_err()
                .contains("80.5")
        );
        assert!(
            read(json!({"hostPort": 65536}))
                .unwrap_err()
                .contains("65536")
        );
        assert!(read(json!("x")).is_err());
        assert!(read(json!([80])).is_err());
    }
}
