//! Whether overlayfs works on this state directory.

use std::path::Path;

use super::{OverlaySpec, overlay};
use crate::error::{Error, Result};

/// Tries a writable overlay mount. `Ok(Err)` says why it is impossible.
pub(crate) fn overlay_works(root: &Path, userxattr: bool) -> Result<Result<()>> {
    let dir = root.join("mnt").join("probe");
    let _ = std::fs::remove_dir_all(&dir);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work] {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    }
    let spec = OverlaySpec { lower: vec![lower], upper: Some((upper, work)), userxattr, volatile: true };
    let works = overlay::mount(&spec).map(drop);
    std::fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
    Ok(works)
}
