//! BRAKE: the bound of what one pass removes without asking.

/// `[reconcile]`: how many accounts without a lease one pass over a target removes without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// 1 to 1,000,000, by default 20.
    pub most: u32,
    /// Of the accounts that were listed, 1 to 100, by default 10; a handful is always removed.
    pub percent: u32,
}

impl Default for Bound {
    fn default() -> Self {
        Self { most: 20, percent: 10 }
    }
}

impl Bound {
    /// So few are a share of nothing.
    const HANDFUL: usize = 5;

    /// The most of `listed` accounts.
    #[must_use]
    pub fn of(self, listed: usize) -> usize {
        let share = listed.saturating_mul(self.percent as usize) / 100;
        (self.most as usize).min(share.max(Self::HANDFUL))
    }
}
