//! What deterministic encoding (RFC 8949 §4.2.1) asks of a map: each key once, in the order of their encodings.

use ciborium::Value;

/// Whether every map in an item, at any depth, has its keys in strictly ascending order of their encodings.
pub(super) fn keys_are_sorted(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(keys_are_sorted),
        Value::Tag(_, inner) => keys_are_sorted(inner),
        Value::Map(entries) => {
            let keys: Vec<_> = entries.iter().map(|(key, _)| super::write(key)).collect();
            keys.is_sorted_by(|a, b| a < b)
                && entries
                    .iter()
                    .all(|(key, value)| keys_are_sorted(key) && keys_are_sorted(value))
        }
        _ => true,
    }
}
