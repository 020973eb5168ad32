//! The way in: plan purely, then write operation, steps and event in one transaction.
