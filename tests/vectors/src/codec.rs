//! Parsing and encoding: every structure of a case is read and must be written as the same bytes.

use openmls::prelude::tls_codec::{self, Deserialize, Serialize};
use openmls::prelude::{
    AddProposalIn, ExternalInitProposal, MlsMessageIn, PreSharedKeyProposal, ProposalIn,
    ProposalType, RatchetTreeIn, RemoveProposal, UpdateProposalIn,
};
use serde_json::Value;

use crate::case::Hex;
use crate::scratch::say;

/// A case of `messages.json`, as far as openmls's types are public; the rest is `mortise_kats`'s. Returns why parts of
/// it were not checked.
///
/// # Errors
/// The field that does not read, or is written differently.
pub(crate) fn messages(case: &Value) -> Result<Vec<String>, String> {
    for field in [
        "mls_welcome",
        "mls_group_info",
        "mls_key_package",
        "public_message_application",
        "public_message_proposal",
        "public_message_commit",
        "private_message",
    ] {
        same::<MlsMessageIn>(case, field)?;
    }
    same::<RatchetTreeIn>(case, "ratchet_tree")?;
    same::<AddProposalIn>(case, "add_proposal")?;
    same::<UpdateProposalIn>(case, "update_proposal")?;
    same::<RemoveProposal>(case, "remove_proposal")?;
    same::<PreSharedKeyProposal>(case, "pre_shared_key_proposal")?;
    same::<ExternalInitProposal>(case, "external_init_proposal")?;
    let field = "group_context_extensions_proposal";
    same_proposal(case, field, ProposalType::GroupContextExtensions)?;
    // Its extensions are syntax only in the vectors: a `ratchet_tree`, which belongs in a GroupInfo and nowhere else
    // (RFC 9420 §17.3). openmls checks that while it reads, and refuses.
    match same_proposal(case, "re_init_proposal", ProposalType::Reinit) {
        Err(what) if what.contains("extension of type RatchetTree that is not allowed") => {
            Ok(vec![RE_INIT.to_owned()])
        }
        other => other.map(|()| Vec::new()),
    }
}

/// Why a ReInit proposal was not checked.
const RE_INIT: &str = "openmls refuses a ratchet_tree in re_init_proposal while it reads";

/// A proposal whose own type openmls does not read alone: it needs the type in front.
fn same_proposal(case: &Value, field: &str, kind: ProposalType) -> Result<(), String> {
    let mut proposal = kind.tls_serialize_detached().map_err(say)?;
    proposal.extend(Hex::field(case, field)?.0);
    same_bytes::<ProposalIn>(field, &proposal)
}

fn same<T: Deserialize + Serialize>(case: &Value, field: &str) -> Result<(), String> {
    same_bytes::<T>(field, &Hex::field(case, field)?.0)
}

fn same_bytes<T: Deserialize + Serialize>(field: &str, bytes: &[u8]) -> Result<(), String> {
    let message = T::tls_deserialize_exact(bytes).map_err(|e| format!("{field}: {e:?}"))?;
    let again = message
        .tls_serialize_detached()
        .map_err(|e| format!("{field}: {e:?}"))?;
    if again == bytes {
        Ok(())
    } else {
        Err(format!("{field}: written differently"))
    }
}

/// A case of `deserialization.json`.
///
/// # Errors
/// A header that does not read, is longer than what was read, or says another length.
pub(crate) fn header(case: &Value) -> Result<(), String> {
    let header = Hex::field(case, "vlbytes_header")?.0;
    let expected = case.get("length").and_then(Value::as_u64);
    let mut rest = header.as_slice();
    let (length, _) = tls_codec::vlen::read_length(&mut rest).map_err(say)?;
    if !rest.is_empty() || Some(length as u64) != expected {
        return Err(format!("reads as {length}"));
    }
    let mut again = Vec::new();
    tls_codec::vlen::write_length(&mut again, length).map_err(say)?;
    if again == header {
        Ok(())
    } else {
        Err("written differently".into())
    }
}
