//! The node.
use crate::{error::Result, layout::Layout, process::Component};
pub fn prepare(_: &Layout) -> Result<()> {
    Ok(())
}
pub fn start_runtime(_: &Layout) -> Result<Vec<Component>> {
    Ok(Vec::new())
}
pub fn start(_: &Layout) -> Result<Vec<Component>> {
    Ok(Vec::new())
}
