//! A row of a report as it is read back.

use serde::Deserialize;

/// One row. Whoever reads it says what of a half, `H`, and of its single calls, `S`, it needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Row<H, S> {
    /// What was run.
    pub(crate) experiment_name: String,
    /// Element type.
    #[serde(rename = "type")]
    pub(crate) dtype: String,
    /// Operation.
    pub(crate) redop: String,
    /// The root, or what stands where there is none.
    pub(crate) root: String,
    /// Bytes.
    pub(crate) size: usize,
    /// Input and output apart.
    pub(crate) out_of_place: H,
    /// Its single calls.
    pub(crate) out_of_place_per_iter: S,
    /// In place, where that was measured.
    pub(crate) in_place: Option<H>,
    /// Its single calls.
    pub(crate) in_place_per_iter: Option<S>,
}
