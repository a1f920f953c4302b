//! Connections of nobody who lives in this world: whoever holds a device's transport key may open one.

use mortise_protocol::identity::PublicKey;
use mortise_protocol::wire::{ClientToRelay, ConnectionBinding, RelayToClient, Request, RequestId};
use mortise_relay::core::{ConnId, Input, StreamId};

use super::World;

impl World {
    /// Opens a connection with this transport key; what comes on it is dropped, but for answers to
    /// [`World::ask_on_line`] and what [`World::tap_line`] keeps.
    pub fn open_line(&mut self, transport_key: PublicKey) -> (ConnId, ConnectionBinding) {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let mut binding = [7; 32];
        binding[..8].copy_from_slice(&conn.0.to_be_bytes());
        let binding = ConnectionBinding(binding);
        if let Some(recorder) = &mut self.recorder {
            let roster = self.people[0].engine().roster();
            let device = roster.device_by_transport_key(&transport_key);
            if let Some((device, _)) = device {
                recorder.connected(conn, device);
            }
        }
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
        let frame = ClientToRelay { id, request };
        if let Some(recorder) = &mut self.recorder {
            recorder.asked(conn, &frame);
        }
        self.relay_step(vec![Input::Frame {
            conn,
            stream: StreamId(1),
            frame,
        }]);
        // Whoever asks by hand does not wait for a disk that is slow.
        self.sync_relay();
        self.heard.remove(&conn).unwrap_or_default()
    }

    /// Keeps from now on what comes on a line unasked.
    pub fn tap_line(&mut self, conn: ConnId) {
        self.tapped.insert(conn, Vec::new());
    }

    /// What has come unasked on a line since [`World::tap_line`].
    #[must_use]
    pub fn tapped(&self, conn: ConnId) -> &[RelayToClient] {
        self.tapped.get(&conn).map_or(&[], Vec::as_slice)
    }

    /// Whether the relay has closed a line.
    #[must_use]
    pub fn is_cut(&self, conn: ConnId) -> bool {
        self.cut_lines.contains(&conn)
    }

    pub(super) fn line_hears(&mut self, conn: ConnId, frame: RelayToClient) {
        if let Some(recorder) = &mut self.recorder {
            recorder.answered(conn, &frame);
        }
        if let Some(heard) = self.heard.get_mut(&conn) {
            heard.push(frame);
        } else if let Some(tapped) = self.tapped.get_mut(&conn) {
            tapped.push(frame);
        }
    }
}
