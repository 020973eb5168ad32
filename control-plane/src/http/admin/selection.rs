//! The selection of tenants in a request.

use fleet_api::selection::SelectionRequest;

use crate::plan;

impl From<SelectionRequest> for plan::TenantSelection {
    fn from(wire: SelectionRequest) -> Self {
        let SelectionRequest { names, labels, selectors, server, all, allow_empty } = wire;
        Self { names, labels, selectors, server, all, allow_empty, automatic: false }
    }
}
