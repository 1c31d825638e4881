//! Attestations: what a client wants stated about its build, and the statements that the daemon makes itself.

mod capture;
mod layers;
mod provenance;
mod sbom;
mod wanted;

pub use capture::capture;
pub use provenance::{HistoryStatement, Traced};
pub use sbom::scan;
pub use wanted::{Wanted, read as wanted};
