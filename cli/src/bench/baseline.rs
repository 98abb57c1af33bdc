//! What we are measured against: public programs and libraries, driven as they are meant to be.

pub(super) mod fastapi;
pub(super) mod pgbench;
pub(super) mod postgres_es;
