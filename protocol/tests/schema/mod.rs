//! Asks the frames' own serde implementations for their names and fields, so that no test needs a copy of the list.

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, EnumAccess, VariantAccess, Visitor, value::Error},
    forward_to_deserialize_any,
};
use skywave_protocol::{
    ClientFrame, Point, ServerFrame,
    frame::{ClientInfo, Heartbeat, Limits, Member, Members, Network, Region, SubscribeOptions},
};

/// A frame or a structure within one: its name and its fields on the wire, in their order.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

/// All frames that a client may send.
pub fn client_frames() -> Vec<Shape> {
    frames::<ClientFrame>()
}

/// All frames that the node may send.
pub fn server_frames() -> Vec<Shape> {
    frames::<ServerFrame>()
}

/// The structures within frames, under the names that the documentation gives them.
pub fn structures() -> Vec<Shape> {
    vec![
        structure::<SubscribeOptions>("subscription"),
        structure::<ClientInfo>("client"),
        structure::<Network>("network"),
        structure::<Point>("point"),
        structure::<Heartbeat>("heartbeat"),
        structure::<Limits>("limits"),
        structure::<Region>("region"),
        structure::<Members>("members"),
        structure::<Member>("member"),
    ]
}

fn structure<'de, T: Deserialize<'de>>(name: &'static str) -> Shape {
    let mut found = Found::default();
    // The value itself is never built: the recorder stops as soon as it knows the fields.
    assert!(T::deserialize(Recorder { found: &mut found, variant: None }).is_err());
    Shape { name, fields: found.fields }
}

fn frames<'de, T: Deserialize<'de>>() -> Vec<Shape> {
    let mut found = Found::default();
    assert!(T::deserialize(Recorder { found: &mut found, variant: None }).is_err());
    let names = found.variants;
    let shape = |name: &'static str| {
        let mut found = Found::default();
        assert!(T::deserialize(Recorder { found: &mut found, variant: Some(name) }).is_err());
        Shape { name, fields: found.fields }
    };
    names.iter().copied().map(shape).collect()
}

#[derive(Default)]
struct Found {
    variants: &'static [&'static str],
    fields: &'static [&'static str],
}

/// A deserializer that notes what it is asked for and always fails.
struct Recorder<'a> {
    found: &'a mut Found,
    /// The frame to look into.
    variant: Option<&'static str>,
}

fn stop<T>() -> Result<T, Error> {
    Err(de::Error::custom("recorded"))
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.found.variants = variants;
        if self.variant.is_some() { visitor.visit_enum(self) } else { stop() }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        self.found.fields = fields;
        stop()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        stop()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Recorder<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name = self.variant.unwrap_or_default();
        Ok((seed.deserialize(de::value::StrDeserializer::new(name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Recorder<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        stop()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, _visitor: V) -> Result<V::Value, Error> {
        stop()
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        stop()
    }
}
