//! Connections of nobody who lives in this world: whoever holds a device's transport key may open one.

use mortise_protocol::identity::PublicKey;
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, RelayToClient, Request, RequestId};
use mortise_relay::core::{ConnId, Input, StreamId};

use super::World;

impl World {
    /// Opens a connection with this transport key; what comes on it is dropped, but for answers to
    /// [`World::ask_on_line`].
    pub fn open_line(&mut self, transport_key: PublicKey) -> (ConnId, ConnectionBinding) {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let binding = ConnectionBinding([7; 32]);
        self.relay_step(vec![Input::Connected {
            conn,
            transport_key,
            binding,
        }]);
        (conn, binding)
    }

    /// Puts a question, and returns all that comes on this connection until the relay has nothing more to say.
    pub fn ask_on_line(&mut self, conn: ConnId, request: Request) -> Vec<RelayToClient> {
        self.heard.insert(conn, Vec::new());
        let id = RequestId(1);
        self.relay_step(vec![Input::Frame {
            conn,
            stream: StreamId(1),
            frame: ClientToRelay { id, request },
        }]);
        self.heard.remove(&conn).unwrap_or_default()
    }
}
