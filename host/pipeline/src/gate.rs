//! Whether the broker may hand out anything new. It does not depend on the caller.

use std::sync::Arc;

use crate::ledger::Ledger;
use crate::refusal::Refused;
use crate::space::Room;
use crate::tasks::board::Board;
use crate::tasks::removal;

/// What has to be well before a lease is issued or renewed.
pub struct Gate {
    /// Whether the task that removes accounts works.
    pub(crate) board: Arc<Board>,
    /// Whether removals can be recorded for long enough.
    pub(crate) ledger: Ledger,
}

impl Gate {
    /// That something new may be handed out, or live longer.
    ///
    /// # Errors
    /// [`Refused::RemovalDown`] when the task that removes accounts does not work. [`Refused::NoRoom`] when the disk
    /// is nearly full: what is left is for the removals' records.
    pub fn may_hand_out(&self) -> Result<(), Refused> {
        if self.board.down(removal::NAME).is_some() {
            return Err(Refused::RemovalDown);
        }
        if self.ledger.room() == Room::Stop { Err(Refused::NoRoom) } else { Ok(()) }
    }
}
