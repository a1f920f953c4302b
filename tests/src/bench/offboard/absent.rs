//! Users who are not online: each has been once, and left a KeyPackage of last resort.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mortise_client::machine::now_ms;
use mortise_client::transport::{self, Connection};
use mortise_protocol::group::{Crypto, Me, MlsProvider, make_key_package};
use mortise_protocol::identity::{RosterSeq, SigningKey};
use mortise_protocol::store::{MemoryStore, Tx};
use mortise_protocol::wire::{ClientToRelay, RelayToClient, Request, RequestId, Response};

use crate::bench::worker::Fixture;

const CONNECT: Duration = Duration::from_secs(20);

/// Publishes a device's KeyPackage of last resort.
///
/// # Errors
/// When the relay refuses it, or is gone.
pub(super) async fn publish(
    fixture: &Fixture,
    number: usize,
    suite: u16,
    roster_seq: RosterSeq,
) -> anyhow::Result<()> {
    let seed = fixture.devices.get(number).context("no such device")?;
    let keys = seed.keys.context("no keys")?;
    let (mls, transport) = (
        SigningKey::from_seed(&keys[0]),
        SigningKey::from_seed(&keys[1]),
    );
    let last_resort = {
        let (crypto, store) = (Crypto::default(), MemoryStore::default());
        let tx = Tx::new(&store);
        let me = Me {
            org: fixture.org,
            user: seed.user,
            device: mls.public().device_id(),
            key: &mls,
        };
        make_key_package(&MlsProvider::new(&crypto, &tx), &me, suite, true, now_ms())
            .map_err(|_| anyhow::anyhow!("make a KeyPackage"))?
    };
    let key = Arc::new(transport);
    let mut connection =
        transport::connect(&fixture.relay, fixture.relay_key, key, CONNECT).await?;
    let hello = Request::Hello {
        org: fixture.org,
        roster_seq,
    };
    ask(&mut connection, 1, hello).await?;
    let publish = Request::PublishKeyPackages {
        suite,
        one_time: Vec::new(),
        last_resort: last_resort.into(),
    };
    ask(&mut connection, 2, publish).await?;
    connection.close().await;
    Ok(())
}

async fn ask(connection: &mut Connection, id: u64, request: Request) -> anyhow::Result<()> {
    let id = RequestId(id);
    connection.send(&ClientToRelay { id, request })?;
    loop {
        match connection.recv().await {
            Some(RelayToClient::Response { id: of, response }) if of == id => {
                return match response {
                    Response::Refused(refusal) => bail!("the relay refused: {refusal}"),
                    _ => Ok(()),
                };
            }
            Some(_) => {}
            None => bail!("the relay is gone: {}", connection.end()),
        }
    }
}
