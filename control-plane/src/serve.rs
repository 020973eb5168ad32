//! Two listeners, a lock, and an orderly end.
