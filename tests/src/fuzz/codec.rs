//! Decoders: no panic, nothing taken that is not canonical (REQ-003, REQ-140).

use mortise_protocol::content::{self, Content};
use mortise_protocol::group::GroupPolicy;
use mortise_protocol::identity::{ClaimLink, JoinLink, SealedProfile, Slot, decode, encode};
use mortise_protocol::roster::{Checkpoint, OrgPolicy, RosterEntry};
use mortise_protocol::wire::aad::{AuthenticatedData, PrivateHeader};
use mortise_protocol::wire::{
    ClientToRelay, LogRecord, RecordBody, RelayToClient, decode_frame_length, limits,
};
use tls_codec::{Deserialize, Serialize};

/// The first byte says what the rest is.
pub(super) fn wire(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 14 {
        0 => canonical::<ClientToRelay>(bytes),
        1 => canonical::<RelayToClient>(bytes),
        2 => canonical::<LogRecord>(bytes),
        3 => canonical::<RecordBody>(bytes),
        4 => canonical::<RosterEntry>(bytes),
        5 => canonical::<Checkpoint>(bytes),
        6 => canonical::<Slot>(bytes),
        7 => canonical::<OrgPolicy>(bytes),
        8 => canonical::<AuthenticatedData>(bytes),
        9 => canonical::<SealedProfile>(bytes),
        10 => {
            if let Some(policy) = GroupPolicy::from_bytes(bytes) {
                assert_eq!(policy.to_bytes(), bytes, "one encoding (REQ-003)");
            }
            if let Ok(header) = PrivateHeader::parse(bytes) {
                // The authenticated data stands in the message as it is encoded here.
                let aad = header.aad.to_bytes();
                assert!(bytes.windows(aad.len()).any(|window| window == aad));
            }
        }
        11 => {
            if let Some(header) = bytes.first_chunk() {
                let length = decode_frame_length(*header, limits::MAX_FRAME_BYTES);
                assert!(length.is_ok_and(|n| n <= limits::MAX_FRAME_BYTES) || length.is_err());
            }
        }
        12 => link(bytes, |text| {
            Some(JoinLink::parse(text).ok()?.to_text().to_string())
        }),
        _ => link(bytes, |text| {
            Some(ClaimLink::parse(text).ok()?.to_text().to_string())
        }),
    }
}

fn canonical<T: Serialize + Deserialize>(bytes: &[u8]) {
    if let Ok(value) = decode::<T>(bytes) {
        assert_eq!(encode(&value), bytes, "one encoding (REQ-003)");
    }
}

fn link(bytes: &[u8], again: fn(&str) -> Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(written) = again(&text) {
        assert_eq!(
            again(&written),
            Some(written.clone()),
            "a link is read as it is written"
        );
    }
}

/// One CBOR item of one encoding.
pub(super) fn content(bytes: &[u8]) {
    if let Ok(Content::Text(message)) = content::decode(bytes) {
        assert_eq!(message.encode(), bytes, "one encoding (REQ-140)");
    }
}
