//! Transactions that wait for another request: their buffers are what is worth keeping.

use std::sync::{Arc, Mutex, PoisonError};

use clew_rules::engine::{Connection, Now, RuleSet, Transaction};

/// Transactions kept; each is some tens of KiB once it has seen ordinary requests.
const MOST: usize = 128;

/// A pool for one rule set at a time. Boxed: a transaction is some kilobytes by itself, which
/// would be copied on each way.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "what is kept is the allocation")]
pub(crate) struct Pool(Mutex<Vec<Box<Transaction>>>);

impl Pool {
    /// One that begins a request.
    pub(crate) fn take(
        &self,
        rules: &Arc<RuleSet>,
        connection: Connection,
        now: Now,
        unique_id: &[u8],
    ) -> Box<Transaction> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match spare {
            Some(mut transaction) => {
                transaction.reset_with(rules, connection, now, unique_id);
                transaction
            }
            None => Box::new(rules.transaction(connection, now, unique_id)),
        }
    }

    /// Lets go of all.
    pub(crate) fn clear(&self) {
        let spare = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(spare);
    }

    /// Takes one back whose request is over.
    pub(crate) fn give_back(&self, transaction: Box<Transaction>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MOST {
            spare.push(transaction);
        }
    }
}
