//! Protobuf messages as Go's `encoding/json` writes them: by their fields' own names, without what is empty,
//! enumerations as numbers. (The official JSON form of protobuf is another one.)

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value};

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let load =
        || DescriptorPool::from_file_descriptor_set(kiln_proto::descriptors(|file| file == "pb/ops.proto"));
    POOL.get_or_init(|| load().ok()).as_ref()
}

/// The message of this full name; `None` only if it is no message of the wire API.
pub(super) fn to_json(name: &str, message: &impl Message) -> Option<Value> {
    let descriptor = pool()?.get_message_by_name(name)?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()?;
    Some(object(&dynamic))
}

/// Messages whose alternatives are wrapped in an object of this name.
fn wrapper(message: &str) -> Option<&'static str> {
    match message {
        "pb.Op" => Some("Op"),
        "pb.FileAction" => Some("Action"),
        "pb.UserOpt" => Some("User"),
        _ => None,
    }
}

fn object(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let wrapper = wrapper(descriptor.full_name());
    let (mut all, mut wrapped) = (Map::new(), Map::new());
    for field in descriptor.fields() {
        let in_wrapper = wrapper.is_some() && field.containing_oneof().is_some();
        let value = message.get_field(&field);
        // The places of a file operation are always told: 0 means something.
        let always = descriptor.full_name() == "pb.FileAction" && !in_wrapper;
        if is_empty(&field, &value, message) && !always {
            continue;
        }
        let target = if in_wrapper { &mut wrapped } else { &mut all };
        target.insert(key(&field, in_wrapper), json(&value));
    }
    if let Some(wrapper) = wrapper {
        all.insert(wrapper.to_owned(), wrapped.into());
    }
    all.into()
}

fn key(field: &FieldDescriptor, in_wrapper: bool) -> String {
    match field.name() {
        "byID" if in_wrapper => "byId".to_owned(),
        name => name.to_owned(),
    }
}

fn is_empty(field: &FieldDescriptor, value: &Field, message: &DynamicMessage) -> bool {
    match value {
        Field::Message(_) => !message.has_field(field),
        Field::List(list) => list.is_empty(),
        Field::Map(map) => map.is_empty(),
        other => other.is_default_for_field(field) && !message.has_field(field),
    }
}

fn json(value: &Field) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.clone().into(),
        Field::Bytes(value) => STANDARD.encode(value).into(),
        Field::EnumNumber(value) => (*value).into(),
        Field::Message(value) => object(value),
        Field::List(values) => values.iter().map(json).collect(),
        Field::Map(values) => values.iter().map(|(name, value)| (map_key(name), json(value))).collect(),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
