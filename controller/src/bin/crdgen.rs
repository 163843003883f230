//! Writes the custom resource definitions into a folder: `helm/crds` unless another one is named.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("helm/crds"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    for (file, text) in controller::crds::manifests()? {
        std::fs::write(folder.join(file), text)?;
    }
    Ok(())
}
