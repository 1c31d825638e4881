//! What the gateway API can do, by name.

use kiln_llb::caps::{Cap, CapList, CapStatus};

const fn cap(id: &'static str, name: &'static str) -> Cap {
    Cap { id, status: CapStatus::Experimental, name, deprecated: false }
}

/// All capabilities of the gateway API; the names are BuildKit's.
pub const GATEWAY: CapList = CapList(&[
    cap("solve.base", ""),
    Cap { deprecated: true, ..cap("solve.inlinereturn", "inline return from solve") },
    cap("resolveimage", "resolve remote image config"),
    cap("resolveimage.resolvemode", "resolve remote image config with custom resolvemode"),
    cap("readfile", "read static file"),
    cap("return", "return solve result"),
    cap("returnmap", "return reference map"),
    cap("readdir", "read static directory"),
    cap("statfile", "stat a file"),
    cap("importcaches", "import caches"),
    cap("proto.refarray", "wire format ref arrays"),
    cap("reference.output", "reference output"),
    cap("frontend.inputs", "frontend inputs"),
    cap("gateway.solve.metadata", "gateway metadata"),
    cap("gateway.exec", "gateway exec"),
    cap("gateway.exec.extrahosts", "gateway exec extra-hosts"),
    cap("gateway.exec.secretenv", "gateway exec secret env"),
    cap("gateway.exec.signals", "gateway exec signals"),
    cap("gateway.exec.filesystem", "gateway exec filesystem"),
    cap("frontend.caps", "frontend capabilities"),
    cap("gateway.solve.evaluate", "gateway evaluate solve"),
    cap("gateway.evaluate", "gateway evaluate"),
    cap("gateway.warnings", "logging warnings"),
    cap("reference.attestations", "reference attestations"),
    cap("source.metaresolver", "source meta resolver"),
    cap("source.metaresolver.image.attestations", "source meta resolver image attestations"),
    cap("source.metaresolver.http.checksumrequest", "source meta resolver http checksum request"),
]);
