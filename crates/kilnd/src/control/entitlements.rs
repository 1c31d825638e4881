//! What a build asks for beyond the usual, held against what the daemon allows.

use std::collections::BTreeSet;

use tonic::Status;

/// Entitlements there are (BuildKit `util/entitlements`).
const KNOWN: [&str; 3] = ["network.host", "security.insecure", "device"];

/// The entitlements that a build is granted.
///
/// # Errors
/// When it asks for one that there is not, or that the daemon does not allow.
pub(super) fn grant(asked: &[String], allowed: &[String]) -> Result<BTreeSet<String>, Status> {
    let mut granted = BTreeSet::new();
    for entitlement in asked {
        let name = entitlement.split('=').next().unwrap_or_default();
        if !KNOWN.contains(&name) {
            return Err(Status::unknown(format!("unknown entitlement {entitlement}")));
        }
        if !allowed.iter().any(|one| one == name) {
            return Err(Status::unknown(format!(
                "granting entitlement {entitlement} is not allowed by build daemon configuration"
            )));
        }
        granted.insert(entitlement.clone());
    }
    Ok(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed() {
        let allowed = ["network.host".to_owned()];
        assert!(grant(&["network.host".to_owned()], &allowed).is_ok());
        let refused = grant(&["security.insecure".to_owned()], &allowed).unwrap_err();
        assert!(refused.message().contains("is not allowed by build daemon configuration"));
        assert!(grant(&["root".to_owned()], &allowed).is_err());
    }
}
